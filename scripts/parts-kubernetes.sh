#!/usr/bin/env bash
# Builds the parts of a real Kubernetes cluster for the tests, next to what scripts/parts.sh installs (and runs that first).
#
#   $UIMGACC_PARTS/kubernetes/bin/      kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl, of Go modules
#   $UIMGACC_PARTS/containerd-2.4/bin/  containerd ctr containerd-shim-runc-v2, of its Go module
#   $UIMGACC_PARTS/etcd/bin/            etcd, of Debian's etcd-server
#   $UIMGACC_PARTS/cni/bin/             bridge host-local loopback portmap, of Debian's containernetworking-plugins
#   $UIMGACC_PARTS/go/bin/go            Go of Debian trixie, where there is none on the PATH that is new enough
#   $UIMGACC_PARTS/kube/<name>/         one part each, named by its version; a folder is there whole or not at all
#
# The first run takes 8 minutes on two idle cores, and 5 GB of temporary space. It needs Go: the one on the PATH where that is new enough or can
# fetch a newer one (1.21 and later), else Debian's from trixie fetches it.
# Safe to run again (a second run takes well under a second), to interrupt, and to run twice at once.
# Usage: scripts/parts-kubernetes.sh            install; prints the folder
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=parts.sh
. "$here/parts.sh"

# A new version is a new folder; the old one is removed.
readonly KUBERNETES=1.37.2
readonly CONTAINERD=2.4.2
# What their go.mod files ask for at least, and what is fetched where the Go at hand is older.
readonly GO_MIN=1.26
readonly GO_FETCH=go1.26.8
readonly KUBERNETES_PROGRAMS=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl)
# From the own release, into the system, where the program of that name is missing. kube-proxy and portmap call iptables.
readonly PROGRAM_PACKAGES=(iptables openssl)
readonly CNI_PLUGINS=(bridge host-local loopback portmap)

# at_least VERSION MINIMUM: compares two versions.
at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; }

# Whether the Go on the PATH can at least fetch a newer one. The tests that are written in Go want one too.
has_go() {
  local have
  command -v go >/dev/null || return 1
  have=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
  at_least "${have#go}" 1.21
}

make_go() {
  say 'Go is missing or too old: taking the one of trixie'
  mirror_url=$(mirror)
  unpack trixie "$1" golang-1.24-go golang-1.24-src
  ln -s usr/lib/go-1.24/bin "$1/bin"
  "$1/bin/go" version >&2
}

# Sets up a Go that is new enough in PATH and GOTOOLCHAIN, with its caches in the temporary folder.
prepare_go() {
  [[ -z ${go_ready:-} ]] || return 0
  local have
  has_go || export GOROOT="$PARTS/go/usr/lib/go-1.24" PATH="$PARTS/go/bin:$PATH"
  have=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
  have=${have#go}
  if at_least "$have" "$GO_MIN"; then
    export GOTOOLCHAIN=local
  else
    say "Go $have fetches $GO_FETCH"
    export GOTOOLCHAIN=$GO_FETCH
    unset GOROOT
  fi
  # The build cache is of no use afterwards; modules are kept where the user keeps them.
  export GOCACHE="$work/go-cache" CGO_ENABLED=0 GOFLAGS=-mod=mod GOWORK=off
  go version >&2 || die "no Go $GO_MIN: install it, or let GOPROXY reach a proxy that has golang.org/toolchain"
  go_ready=yes
}

make_kubernetes() {
  local target=$1 src="$work/kubernetes" kube=k8s.io/kubernetes program
  prepare_go
  mkdir -p "$src" "$target/bin"
  cd "$src"
  # Its staging modules are required at v0.0.0 and replaced by folders that the module does not hold: they are published as v0.X.Y.
  local mod staging
  mod=$(go mod download -json "$kube@v$KUBERNETES" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
  [[ -r $mod ]] || die "the module $kube@v$KUBERNETES cannot be downloaded"
  mapfile -t staging < <(sed -n 's|^\t*\(replace \)\{0,1\}\(k8s.io/[a-z0-9-]*\) => ./staging/.*|\2|p' "$mod")
  ((${#staging[@]} > 20)) || die "$mod names too few staging modules"
  local name
  {
    printf 'module parts\n\ngo %s.0\n\nrequire %s v%s\n\n' "$GO_MIN" "$kube" "$KUBERNETES"
    for name in "${staging[@]}"; do
      printf 'replace %s => %s v0.%s\n' "$name" "$name" "${KUBERNETES#1.}"
    done
  } >go.mod
  local packages=()
  for program in "${KUBERNETES_PROGRAMS[@]}"; do packages+=("$kube/cmd/$program"); done
  local set=-X=k8s.io/component-base/version major=${KUBERNETES%%.*} minor=${KUBERNETES#*.}
  nice go build -trimpath -buildvcs=false -o "$target/bin/" \
    -ldflags "-s -w $set.gitVersion=v$KUBERNETES $set.gitMajor=$major $set.gitMinor=${minor%%.*} $set.gitTreeState=clean" "${packages[@]}" >&2
  "$target/bin/kubelet" --version >&2
}

make_containerd_of_go() {
  local target=$1 src="$work/containerd" module=github.com/containerd/containerd/v2
  prepare_go
  mkdir -p "$src" "$target/bin"
  cd "$src"
  printf 'module parts\n\ngo %s.0\n\nrequire %s v%s\n' "$GO_MIN" "$module" "$CONTAINERD" >go.mod
  nice go build -trimpath -buildvcs=false -tags no_btrfs -o "$target/bin/" -ldflags "-s -w -X=$module/version.Version=v$CONTAINERD" \
    "$module/cmd/containerd" "$module/cmd/ctr" "$module/cmd/containerd-shim-runc-v2" >&2
  "$target/bin/containerd" --version >&2
}

make_etcd() {
  # Not installed as a package: that would start a service on port 2379.
  mirror_url=$(mirror)
  unpack "$host" "$1" etcd-server
  mv -- "$1/usr/bin" "$1/bin"
  "$1/bin/etcd" --version >&2
}

make_cni() {
  mirror_url=$(mirror)
  unpack "$host" "$1" containernetworking-plugins
  mkdir "$1/bin"
  local plugin
  for plugin in "${CNI_PLUGINS[@]}"; do
    mv -- "$1/usr/lib/cni/$plugin" "$1/bin/"
  done
}

install_programs() {
  local name missing=()
  for name in "${PROGRAM_PACKAGES[@]}"; do
    command -v "$name" >/dev/null || missing+=("$name")
  done
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  update_lists
  DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}" >&2
}

main_kubernetes() {
  "$here/parts.sh" >/dev/null
  install_programs
  host=$(host_release)
  pkg=$PARTS/kube
  mkdir -p "$pkg"
  exec 8>"$pkg/.lock"
  flock 8
  local arch name want
  arch=$(dpkg --print-architecture)
  # name in $PARTS, name of its version, command.
  local parts=()
  has_go || parts+=("go go-1.24-$arch make_go")
  parts+=(
    "etcd etcd-$host-$arch make_etcd"
    "cni cni-$host-$arch make_cni"
    "containerd-2.4 containerd-$CONTAINERD-$arch make_containerd_of_go"
    "kubernetes kubernetes-$KUBERNETES-$arch make_kubernetes"
  )
  local line command
  for line in "${parts[@]}"; do
    read -r name want command <<<"$line"
    if [[ ! -e $pkg/$want ]]; then
      [[ -n $work ]] || work=$(mktemp -d)
      part "$want" "$command"
      # Older versions of it, and what an interrupted run left.
      find "$pkg" -mindepth 1 -maxdepth 1 \( -name "${want%%-*}-*" -o -name ".new-${want%%-*}-*" \) ! -name "$want" -exec rm -rf -- {} +
    fi
    [[ $(readlink "$PARTS/$name" || true) == "kube/$want" ]] || ln -sfn -- "kube/$want" "$PARTS/$name"
  done
  printf '%s\n' "$PARTS"
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || main_kubernetes "$@"
