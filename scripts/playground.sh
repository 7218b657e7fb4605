#!/usr/bin/env bash
# A Kubernetes cluster on this machine to try uimgacc in: one node, a registry with an image of Python and pandas, a folder for the
# store. For Debian 12 or 13 as root. It touches no containerd of the machine, and `down` leaves nothing of it behind.
#
# The first `up` builds Kubernetes and our programs (15 minutes on two cores); later ones take a minute.
# UIMGACC_PLAYGROUND names its folder (else /var/tmp/uimgacc-playground). Where UIMGACC_IMAGE and UIMGACC_PROGRAMS name folders with our
# image and our programs, nothing is built.
#
# Usage: scripts/playground.sh up        start it, in the background
#        scripts/playground.sh env       print what a shell needs to use it: eval "$(scripts/playground.sh env)"
#        scripts/playground.sh down      end it
set -euo pipefail
cd "$(dirname "$0")/.."

readonly FOLDER=${UIMGACC_PLAYGROUND:-/var/tmp/uimgacc-playground}
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

exec 3>&2
say() { printf 'playground: %s\n' "$*" >&3; }
die() {
  say "$*"
  exit 1
}

# Whether its process runs: its number may be that of another one by now.
is_up() {
  [[ -s $FOLDER/pid && $(tr '\0' ' ' 2>/dev/null <"/proc/$(<"$FOLDER/pid")/cmdline") == *"uimgacc-playground $FOLDER "* ]]
}

# Links our programs into the folder's bin, and exports UIMGACC_IMAGE. Called before ||, so each line says by itself what a failure means.
build() {
  local target=${CARGO_TARGET_DIR:-target}
  say 'installing containerd, a registry and Kubernetes'
  UIMGACC_PARTS=$(scripts/parts.sh) || return 1
  export UIMGACC_PARTS
  scripts/parts-kubernetes.sh >/dev/null || return 1
  if [[ -n ${UIMGACC_PROGRAMS:-} && -n ${UIMGACC_IMAGE:-} ]]; then
    ln -s -- "$UIMGACC_PROGRAMS"/uimgacc{,-playground} "$FOLDER/bin/"
    return
  fi
  say 'building our programs and their image'
  UIMGACC_IMAGE=$(realpath -m -- "$target/image")
  export UIMGACC_IMAGE
  scripts/image.sh --profile dev "$UIMGACC_IMAGE" || return 1
  cargo build --quiet -p uimgacc-playground || return 1
  # The static one of the image does: no second build.
  ln -s -- "$(realpath -- "$target/$(uname -m)-unknown-linux-musl/debug/uimgacc")" \
    "$(realpath -- "$target/debug/uimgacc-playground")" "$FOLDER/bin/"
}

up() {
  local module tries=600
  [[ $EUID == 0 ]] || die 'run this as root: it mounts and starts containers'
  is_up && die 'it is up already'
  [[ ! -e $FOLDER ]] || down
  mkdir -p "$FOLDER/bin"
  # What the builds say goes into the log, what we say to the terminal.
  build >>"$FOLDER/build.log" 2>&1 || {
    tail -n 20 "$FOLDER/build.log" >&2
    die "the build failed; all of it is in $FOLDER/build.log"
  }
  for module in overlay erofs loop; do
    modprobe --quiet "$module" || true
  done
  say 'starting the cluster'
  # In a session of its own: Ctrl-C in this terminal is not meant for it.
  TMPDIR="$FOLDER" setsid "$FOLDER/bin/uimgacc-playground" "$FOLDER" >>"$FOLDER/log" 2>&1 </dev/null &
  printf '%s\n' "$!" >"$FOLDER/pid"
  until [[ -e $FOLDER/env ]]; do
    if ! kill -0 "$!" 2>/dev/null || ((tries-- == 0)); then
      tail -n 40 "$FOLDER/log" >&2
      die "the cluster does not start; all of it is in $FOLDER/log"
    fi
    sleep 0.5
  done
  # shellcheck disable=SC2016 # to be typed
  say 'the cluster is ready; now: eval "$(scripts/playground.sh env)"'
}

down() {
  local tries=1200 pid
  if is_up; then
    pid=$(<"$FOLDER/pid")
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do
      ((tries-- > 0)) || die "process $pid does not end; its log is $FOLDER/log"
      sleep 0.1
    done
  fi
  # Where it was killed, its nodes' mounts are gone with them; never remove through one that is left.
  grep -q " $FOLDER/" /proc/self/mountinfo && die "something is mounted in $FOLDER"
  rm -rf --one-file-system -- "$FOLDER"
}

case ${1:-} in
  up) up ;;
  env)
    { is_up && [[ -e $FOLDER/env ]]; } || die 'it is not up: scripts/playground.sh up'
    cat "$FOLDER/env"
    ;;
  down) down ;;
  *)
    sed -n '10,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
