#!/usr/bin/env bash
# Shows what uimgacc does, with real parts: a registry, containerd with our snapshotter, and a Python machine-learning image.
#
# For Debian 12 or 13 as root. It works in one temporary folder (below TMPDIR, else /var/tmp: some 8 GB), touches no containerd of
# the machine, and leaves nothing behind, also when interrupted. Only the parts and the image are kept between runs, in the
# cache folder of scripts/parts.sh.
#
# Usage: scripts/demo.sh [--keep-image-cache=no]     with "no" the image is built again and not kept
#        scripts/demo.sh --kubernetes [OPTION...]    on a cluster, from bare to bare; options are those of the bench, e.g. --rounds 9,
#                                                    --containerd 2.4. The first run builds Kubernetes (8 minutes) and our image.
set -euo pipefail
cd "$(dirname "$0")/.."

# Raise this when the image changes.
readonly IMAGE_VERSION=2
# What the container runs to its first output.
readonly PROGRAM='import numpy, sklearn.linear_model as m; x = numpy.arange(9.0).reshape(-1, 1); print("ready:", round(float(m.LinearRegression().fit(x, x).predict([[42.0]])[0][0])), flush=True)'

keep_image=yes
kubernetes=no
case ${1:-} in
  '') ;;
  --keep-image-cache=no) keep_image=no ;;
  --kubernetes) kubernetes=yes && shift ;;
  *)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 1
    ;;
esac
[[ $EUID == 0 ]] || {
  printf 'demo: run this as root: it mounts and starts containers\n' >&2
  exit 1
}
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# The profile for development compiles in half the time, and what moves the bytes is optimised in it too.
readonly programs=${CARGO_TARGET_DIR:-target}/debug
state=$(mktemp -d "${TMPDIR:-/var/tmp}/uimgacc-demo.XXXXXX")
# Several demos may run at once: runc and cgroups know containers by this name.
readonly NAMESPACE=uimgacc-demo-$$
daemons=()
sockets=()
bench=
maker=

# --- leaving nothing behind ---

# Prints the process IDs of the shims that belong to our containerds, by the socket in their arguments.
shims() {
  local cmdline words socket
  for cmdline in /proc/[0-9]*/cmdline; do
    mapfile -d '' -t words 2>/dev/null <"$cmdline" || continue
    [[ ${words[0]:-} == *containerd-shim* ]] || continue
    for socket in ${sockets[@]+"${sockets[@]}"}; do
      [[ " ${words[*]} " != *" $socket "* ]] || basename "$(dirname "$cmdline")"
    done
  done
}

# Kills a process and all below it, the children first, so that a shim reaps its containers.
kill_tree() {
  local children child
  read -r -d '' -a children < <(cat /proc/"$1"/task/*/children 2>/dev/null) || true
  for child in ${children[@]+"${children[@]}"}; do
    kill_tree "$child"
  done
  kill -KILL "$1" 2>/dev/null || true
}

stop() {
  local pid=$1 tries=100
  kill -TERM "$pid" 2>/dev/null || true
  # Also where an interrupt came while it was held back.
  kill -CONT "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null && ((tries-- > 0)); do
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

cleanup() {
  local status=$? socket id pid point
  trap '' INT TERM HUP
  trap - EXIT
  set +e
  case $status in
    0) ;;
    129 | 130 | 143) say 'interrupted: cleaning up' ;;
    *)
      say "ended with status $status; the ends of the logs:"
      find "$state" -maxdepth 1 -name '*.log' -size +0 -exec tail -v -n 3 {} + | cut -c -300
      ;;
  esac
  # The bench takes its cluster down, which may take half a minute; the maker of the image removes what it made.
  for pid in $bench $maker; do
    kill -TERM "$pid" 2>/dev/null
    wait "$pid"
  done
  for socket in ${sockets[@]+"${sockets[@]}"}; do
    [[ -S $socket ]] || continue
    for id in $(timeout 10 "$ctd/ctr" --address "$socket" --namespace "$NAMESPACE" tasks ls -q 2>/dev/null); do
      timeout 10 "$ctd/ctr" --address "$socket" --namespace "$NAMESPACE" tasks rm -f "$id" >/dev/null 2>&1
    done
  done
  for pid in $(shims); do
    kill_tree "$pid"
  done
  # Last started, first stopped: containerds before the snapshotter that they ask.
  for pid in $(printf '%s\n' ${daemons[@]+"${daemons[@]}"} | tac); do
    stop "$pid"
  done
  awk -v dir="$state/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | tac | while read -r point; do
    umount -l "$point"
  done
  rmdir /run/containerd/runc/"$NAMESPACE" /sys/fs/cgroup/{,*/}"$NAMESPACE"{/*,} 2>/dev/null
  rm -rf -- "$state"
  if grep -q " $state/" /proc/self/mountinfo || [[ -e $state ]]; then
    say "could not remove $state"
    ((status)) || status=1
  fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# --- saying and measuring ---

say() { printf '\n%s\n' "$*"; }

now_ms() { printf '%s' "$((${EPOCHREALTIME/[.,]/} / 1000))"; }

seconds() { awk -v ms="$1" 'BEGIN { printf "%.1f s", ms / 1000 }'; }

megabytes() { awk -v bytes="$1" 'BEGIN { if (bytes < 1000000) printf "%.1f kB", bytes / 1000; else printf "%.0f MB", bytes / 1000000 }'; }

begun=
task() {
  printf '  %-62s' "$1"
  begun=$(now_ms)
}
done_task() { printf '%10s\n' "$(seconds $(($(now_ms) - begun)))"; }

# Bytes that all disks of the machine have read since boot (Documentation/block/stat.rst: field 3, in sectors of 512 bytes).
# Loop devices, RAM disks and stacked devices are left out: what they read is read from another one.
disk_read() {
  awk 'FILENAME ~ "/(sd|vd|xvd|nvme|mmcblk)[^/]*/stat$" { sectors += $3 } END { printf "%.0f", sectors * 512 }' /sys/block/*/stat
}

# Bytes of answers that the registry has sent, by its access log: ... "GET path HTTP/1.1" status bytes "..." "agent"
registry_sent() { sed -n 's/.*"GET [^"]* HTTP[^"]*" [0-9]* \([0-9]*\) .*/\1/p' "$state/registry.log" | awk '{ bytes += $1 } END { printf "%.0f", bytes }'; }

drop_caches() {
  sync
  echo 3 >/proc/sys/vm/drop_caches
}

# --- the parts ---

# daemon NAME READY COMMAND...: starts it with a log of its own and waits until the shell condition READY holds.
# In a session of its own, so that Ctrl-C reaches this script alone, which ends it in order.
daemon() {
  local name=$1 ready=$2 tries=300
  shift 2
  : >>"$state/$name.log"
  PATH="$ctd:$UIMGACC_PARTS/bin:$PATH" setsid "$@" >>"$state/$name.log" 2>&1 </dev/null &
  daemons+=("$!")
  until eval "$ready"; do
    if ! kill -0 "${daemons[-1]}" 2>/dev/null || ((tries-- == 0)); then
      printf '\ndemo: %s does not start\n' "$name" >&2
      exit 1
    fi
    sleep 0.1
  done
}

start_registry() {
  cat >"$state/registry.yml" <<YAML
version: 0.1
storage:
  delete:
    enabled: true
  filesystem:
    rootdirectory: $state/registry
http:
  addr: 127.0.0.1:0
  secret: demo
YAML
  # shellcheck disable=SC2016 # evaluated later
  daemon registry 'grep -q "listening on 127.0.0.1:" "$state/registry.log"' \
    env OTEL_TRACES_EXPORTER=none "$UIMGACC_PARTS/bin/docker-registry" serve "$state/registry.yml"
  registry=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$state/registry.log" | head -n 1)
}

# start_containerd NAME: with root, state and socket of its own, and our snapshotter as a proxy plugin.
start_containerd() {
  local dir="$state/$1" snapshotter
  mkdir "$dir"
  {
    cat <<TOML
version = 3
root = "$dir/root"
state = "$dir/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]
[grpc]
  address = "$dir/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$dir/opt"
[proxy_plugins.uimgacc]
  type = "snapshot"
  address = "$state/snapshotter.sock"
TOML
    for snapshotter in overlayfs uimgacc; do
      printf '[[plugins."io.containerd.transfer.v1.local".unpack_config]]\nplatform = "linux"\nsnapshotter = "%s"\ndiffer = "walking"\n' "$snapshotter"
    done
  } >"$dir/config.toml"
  sockets+=("$dir/c.sock")
  # shellcheck disable=SC2016 # evaluated later
  daemon "$1" '[[ -S ${sockets[-1]} ]] && "$ctd/ctr" --address "${sockets[-1]}" version >/dev/null 2>&1' \
    "$ctd/containerd" --config "$dir/config.toml"
}

start_snapshotter() {
  # shellcheck disable=SC2016 # evaluated later
  daemon snapshotter '[[ -S $state/snapshotter.sock ]]' \
    "$programs"/uimgacc-snapshotter supervise --address "$state/snapshotter.sock" -- --store "$state/store" --root "$state/snapshots"
  supervisor=${daemons[-1]}
}

# --- the image ---

# Puts the folder of the image into $image: that of the cache, or one whose making begins now, beside what follows.
begin_image() {
  image="$UIMGACC_PARTS/demo-image-$IMAGE_VERSION-$(cut -d ' ' -f 1 "$UIMGACC_PARTS/mirror")"
  [[ $keep_image == yes ]] || image="$state/image"
  [[ -e $image ]] || {
    setsid scripts/demo-image.sh "$image" "$PROGRAM" >"$state/image.log" 2>&1 &
    maker=$!
  }
}

# Waits until the image is there.
finish_image() {
  if [[ -n $maker ]]; then
    task 'image: Debian, Python packages, a program (rest)'
    wait "$maker"
    maker=
    done_task
  fi
  local unpacked layers
  read -r unpacked layers <"$image/facts"
  printf '  %d layers, %s packed, %s unpacked\n' "$layers" "$(megabytes "$(cat "$image"/blobs/sha256/* | wc -c)")" "$(megabytes "$unpacked")"
}

# --- the show ---

ctr() { "$ctd/ctr" --address "$state/$1/c.sock" --namespace "$NAMESPACE" "${@:2}"; }

# measure NAME CONTAINERD SNAPSHOTTER IMAGE: pulls and starts with dropped caches; puts what it took into pull_ms[NAME] and so on.
declare -A pull_ms run_ms sent read_bytes
measure() {
  local name=$1 containerd=$2 snapshotter=$3 reference=$4 t0 t1 t2 sent0 read0 line
  drop_caches
  sent0=$(registry_sent)
  read0=$(disk_read)
  t0=$(now_ms)
  ctr "$containerd" images pull --plain-http --snapshotter "$snapshotter" "$reference" >"$state/pull.log" 2>&1
  t1=$(now_ms)
  # The time of the first line, not of the container's end.
  ctr "$containerd" run --rm --snapshotter "$snapshotter" "$reference" "first-$name" >"$state/out.fifo" 2>"$state/run.log" &
  local run=$!
  read -r line <"$state/out.fifo" || true
  t2=$(now_ms)
  wait "$run"
  [[ $line == 'ready: 42' ]] || {
    printf '\ndemo: the container said "%s"\n' "$line" >&2
    exit 1
  }
  pull_ms[$name]=$((t1 - t0))
  run_ms[$name]=$((t2 - t1))
  sent[$name]=$(($(registry_sent) - sent0))
  read_bytes[$name]=$(($(disk_read) - read0))
}

# The number of files that the container "reader" has read so far.
files_read() { tail -n 1 "$state/reader.log" 2>/dev/null | grep -o '^[0-9]*' || printf 0; }

wait_for_files() {
  local wanted=$1 tries=300
  until (($(files_read) > wanted)); do
    ((tries-- > 0)) || {
      printf '\ndemo: the container has stopped reading\n' >&2
      exit 1
    }
    sleep 0.1
  done
}

# on_kubernetes [OPTION...]: the same on a real cluster, by the bench, which tells what it does.
on_kubernetes() {
  task 'Kubernetes, etcd, containerd: from Go modules and Debian'
  scripts/parts-kubernetes.sh >"$state/parts-kubernetes.log" 2>&1
  done_task
  task 'our image, by scripts/image.sh'
  scripts/image.sh "$state/ours" >"$state/our-image.log" 2>&1
  done_task
  task 'the bench, by cargo build --release'
  cargo build --quiet --release -p uimgacc-bench 2>"$state/cargo.log"
  done_task
  finish_image
  # In a session of its own, so that Ctrl-C reaches this script alone, which ends it in order.
  TMPDIR="$state" UIMGACC_IMAGE="$state/ours" setsid "${CARGO_TARGET_DIR:-target}/release/uimgacc-bench" kubernetes --image "$image" --expect 'ready: 42' \
    --programs "${CARGO_TARGET_DIR:-target}/$(uname -m)-unknown-linux-musl/release" "$@" &
  bench=$!
  wait "$bench"
  bench=
  say "All of it took $(seconds $(($(now_ms) - start))). Cleaning up."
}

start=$(now_ms)
say 'Preparing'
task 'parts from Debian (containerd, runc, registry, skopeo)'
UIMGACC_PARTS=$(scripts/parts.sh 2>"$state/parts.log")
export UIMGACC_PARTS
readonly ctd="$UIMGACC_PARTS/containerd-2.1/bin"
done_task
for module in overlay erofs loop; do
  modprobe --quiet "$module" || true
done
begin_image
if [[ $kubernetes == yes ]]; then
  on_kubernetes "$@"
  exit
fi
task 'our two programs, by cargo build'
cargo build --quiet -p uimgacc-cli -p uimgacc-snapshotter 2>"$state/cargo.log"
done_task
built=$(now_ms)
finish_image
mkfifo "$state/out.fifo"
start_registry
task 'push to a registry on loopback'
"$UIMGACC_PARTS/bin/skopeo" --insecure-policy copy --quiet --dest-tls-verify=false "oci:$image" "docker://$registry/ml:1"
done_task

say 'containerd alone: pull, unpack, start'
start_containerd plain
printf '  the program: %s\n' "$PROGRAM" | fold -s -w 100
task 'caches dropped; to its first output'
measure plain plain overlayfs "$registry/ml:1"
done_task

say 'uimgacc'
task 'create, once for all nodes'
"$programs"/uimgacc store init --store "$state/store" >"$state/create.log" 2>&1
"$programs"/uimgacc create "$registry/ml:1" "$registry/ml:1-uimgacc" --store "$state/store" --plain-http >>"$state/create.log" 2>&1
create_ms=$(($(now_ms) - begun))
done_task
start_snapshotter
start_containerd fast
task 'caches dropped; to the same output, of the target image'
measure fast fast uimgacc "$registry/ml:1-uimgacc"
done_task

say 'Caches dropped before each start'
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b <= 0) printf "-"; else printf(a / b < 100 ? "%.1f x" : "%.0f x", a / b) }'; }
row() { printf '  %-38s %14s %14s %10s\n' "$@"; }
plain_ms=$((pull_ms[plain] + run_ms[plain]))
fast_ms=$((pull_ms[fast] + run_ms[fast]))
row '' containerd uimgacc ratio
row 'pull' "$(seconds "${pull_ms[plain]}")" "$(seconds "${pull_ms[fast]}")" "$(ratio "${pull_ms[plain]}" "${pull_ms[fast]}")"
row 'container to its first output' "$(seconds "${run_ms[plain]}")" "$(seconds "${run_ms[fast]}")" "$(ratio "${run_ms[plain]}" "${run_ms[fast]}")"
row 'start in all' "$(seconds $plain_ms)" "$(seconds $fast_ms)" "$(ratio $plain_ms $fast_ms)"
row 'sent by the registry' "$(megabytes "${sent[plain]}")" "$(megabytes "${sent[fast]}")" "$(ratio "${sent[plain]}" "${sent[fast]}")"
row 'read from the disk, by all processes' "$(megabytes "${read_bytes[plain]}")" "$(megabytes "${read_bytes[fast]}")" "$(ratio "${read_bytes[plain]}" "${read_bytes[fast]}")"
row 'create, once for all nodes' '' "$(seconds $create_ms)" ''

say 'kill -9 of the daemon under a running container'
cat >"$state/reader.py" <<'PYTHON'
import os, time
count = 0
while True:
    for folder, _, names in os.walk("/usr"):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    while file.read(1 << 20):
                        pass
                count += 1
                if count % 20 == 0:
                    print(count, path, flush=True)
                    time.sleep(0.01)
PYTHON
ctr fast run --detach --snapshotter uimgacc --log-uri "file://$state/reader.log" \
  --mount "type=bind,src=$state/reader.py,dst=/srv/reader.py,options=rbind:ro" "$registry/ml:1-uimgacc" reader python3 /srv/reader.py
wait_for_files 0
# The supervisor is held back, so that the daemon stays dead for a while.
kill -STOP "$supervisor"
kill -KILL "$(tr -d ' ' <"/proc/$supervisor/task/$supervisor/children")"
drop_caches
before=$(files_read)
wait_for_files $((before + 200))
printf '  killed after %d files; without it the container has read %d more, from dropped caches\n' "$before" "$(($(files_read) - before))"
kill -CONT "$supervisor"
task 'its supervisor goes on; another container starts'
line=$(ctr fast run --rm --snapshotter uimgacc "$registry/ml:1-uimgacc" second)
done_task
[[ $line == 'ready: 42' ]] || {
  printf 'demo: the container said "%s"\n' "$line" >&2
  exit 1
}
before=$(files_read)
wait_for_files "$before"
printf '  and the first one goes on reading\n'

finish=$(now_ms)
say "All of it took $(seconds $((finish - start))), $(seconds $((built - start))) of that for parts and cargo. Cleaning up."
