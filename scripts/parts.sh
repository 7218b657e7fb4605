#!/usr/bin/env bash
# Installs the real parts that the tests and the demo run: containerd 1.6, 1.7 and 2.1, runc, a registry, skopeo, erofs-utils,
# and what a build needs. For Debian 12 or 13 as root, from Debian's packages, and one package of PyPI.
#
# What the own release has in a good version is installed by apt-get. What must come from another release is fetched with an apt
# configuration of its own (own sources, own lists; the machine's are never touched) and unpacked into one cache folder:
#
#   $UIMGACC_PARTS/bin/                    fsck.erofs dump.erofs mkfs.erofs docker-registry skopeo runc
#   $UIMGACC_PARTS/containerd-{1.6,1.7,2.1}/bin/  containerd ctr containerd-shim-runc-v2
#   $UIMGACC_PARTS/ucloud-sdk              ucloud-sdk-python3 of PyPI, for PYTHONPATH
#   $UIMGACC_PARTS/mirror                  this Debian's codename and the mirror it comes from, for mmdebstrap
#   $UIMGACC_PARTS/pkg/<name>/             one unpacked part each; a folder is there whole or not at all
#
# Safe to run again (a second run takes well under a second), to interrupt, and to run twice at once.
# Usage: scripts/parts.sh            install; prints the folder
set -euo pipefail

# Raise this when the lists below change: every part is then made again.
readonly PARTS_VERSION=2
readonly PARTS=${UIMGACC_PARTS:-${XDG_CACHE_HOME:-$HOME/.cache}/uimgacc/parts}
readonly SDK_VERSION=0.11.150
# Where `part` puts what it makes.
pkg=$PARTS/pkg
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# From the own release, into the system. gcc and libc6-dev: Rust links with them and zstd is C.
readonly SYSTEM_PACKAGES=(
  ca-certificates curl gcc libc6-dev make pkg-config git
  mmdebstrap skopeo libseccomp2 busybox-static
  pigz zstd xz-utils tar attr e2fsprogs mount kmod procps iproute2 util-linux
  python3 python3-pip shellcheck systemd
)

say() { printf 'parts: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

work=
cleanup() { [[ -z $work ]] || rm -rf -- "$work"; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Prints the codename of this Debian, e.g. "bookworm".
host_release() (
  # shellcheck source=/dev/null
  . /etc/os-release
  [[ ${ID:-} == debian ]] || die "this is ${PRETTY_NAME:-no Debian}: Debian 12 or 13 is needed"
  printf '%s\n' "${VERSION_CODENAME:?}"
)

system_packages_missing() {
  local package
  for package in "${SYSTEM_PACKAGES[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) == ii* ]] || printf '%s\n' "$package"
  done
}

lists_fresh=
update_lists() {
  [[ -z $lists_fresh ]] || return 0
  apt-get -q update >&2
  lists_fresh=yes
}

install_system_packages() {
  local missing
  mapfile -t missing < <(system_packages_missing)
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  update_lists
  DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}" >&2
}

# Prints the address of the first Debian mirror that apt has lists of, or nothing.
known_mirror() {
  # shellcheck disable=SC2016 # the words in $() are apt's
  apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 == "Debian" && !seen { print $3; seen = 1 }'
}

# The Debian mirror that this machine's own apt uses; the other releases are fetched from there too.
mirror() {
  local url
  url=$(known_mirror)
  if [[ -z $url ]]; then
    update_lists
    url=$(known_mirror)
  fi
  [[ -n $url ]] || die 'apt knows no Debian mirror: put one into /etc/apt/sources.list.d'
  printf '%s\n' "$url"
}

# Makes an apt configuration for release $1 in "$work/apt/$1" and gets its lists, once a run.
release_config() {
  local release=$1 dir="$work/apt/$1"
  [[ ! -e $dir/ready ]] || return 0
  say "reading the package lists of $release"
  mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
  # A testing release's Release file may be out of date on a mirror; these are parts for tests, so that is no harm.
  printf 'deb [signed-by=%s check-valid-until=no] %s %s main\n' "$KEYRING" "$mirror_url" "$release" >"$dir/sources.list"
  cat >"$dir/apt.conf" <<CONF
Dir::Etc::SourceList "$dir/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "$dir/lists";
Dir::State::Status "/dev/null";
Dir::Cache "$dir/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
CONF
  APT_CONFIG="$dir/apt.conf" apt-get -q -o APT::Update::Error-Mode=any update >&2 ||
    die "cannot read the lists of $release: if its signing key is unknown, upgrade the package debian-archive-keyring"
  touch "$dir/ready"
}

# unpack RELEASE DIR PACKAGE...: downloads the packages (apt checks their hashes) and unpacks them into DIR.
unpack() {
  local release=$1 target=$2 deb
  shift 2
  release_config "$release"
  local debs="$work/debs/$release-$1"
  mkdir -p "$debs" "$target"
  (cd "$debs" && APT_CONFIG="$work/apt/$release/apt.conf" apt-get -q download "$@" >&2)
  for deb in "$debs"/*.deb; do
    dpkg -x "$deb" "$target"
  done
}

# part NAME COMMAND ARG...: runs the command with a new folder as last argument, and moves that to $pkg/NAME when it is whole.
part() {
  local name=$1
  shift
  [[ ! -e $pkg/$name ]] || return 0
  say "making $name"
  # Outside of `work`, because a rename needs one file system.
  local new="$pkg/.new-$name"
  rm -rf -- "$new"
  mkdir -p "$new"
  "$@" "$new"
  mv -T -- "$new" "$pkg/$name"
}

make_containerd() {
  unpack "$1" "$2" containerd
  mv -- "$2/usr/bin" "$2/bin"
  "$2/bin/containerd" --version >&2
}

make_runc() {
  unpack "$host" "$1" runc
  "$1/usr/sbin/runc" --version >&2 || "$1/usr/bin/runc" --version >&2
}

make_registry() {
  # Not installed as a package: that would start a service on port 5000.
  unpack "$host" "$1" docker-registry
  "$1/usr/bin/docker-registry" --version >&2
}

# erofs-utils of trixie with its libraries and its own loader, so that it runs on bookworm, whose glibc is older.
make_erofs_utils() {
  unpack trixie "$1" erofs-utils libc6 libdeflate0 liblz4-1 liblzma5 libselinux1 libpcre2-8-0 libuuid1 libxxhash0 libzstd1 zlib1g
  local loader libc tool
  loader=$(cd "$1" && find usr -name 'ld-linux-*.so.*' | sort | tail -n 1)
  libc=$(cd "$1" && find usr -name 'libc.so.6')
  [[ -n $loader && -n $libc ]] || die 'the package libc6 is not laid out as expected'
  mkdir "$1/wrap"
  for tool in fsck.erofs dump.erofs mkfs.erofs; do
    # The folder is found from the script's own place, so the cache may be moved.
    cat >"$1/wrap/$tool" <<WRAP
#!/bin/sh
d=\$(dirname "\$(readlink -f "\$0")")/..
exec "\$d/$loader" --library-path "\$d/${libc%/*}" "\$d/usr/bin/$tool" "\$@"
WRAP
    chmod 755 "$1/wrap/$tool"
  done
  "$1/wrap/dump.erofs" -V >&2
}

# The client that users of the API have, as it is.
make_ucloud_sdk() {
  python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --target "$1" "ucloud-sdk-python3==$SDK_VERSION"
  PYTHONPATH="$1" python3 -c 'import ucloud.client'
}

# links TARGET...: puts each program into bin/ under its own name.
links() {
  local target
  mkdir -p "$PARTS/bin"
  for target in "$@"; do
    [[ -x $target ]] || die "$target is not there"
    ln -sfn -- "$target" "$PARTS/bin/$(basename "$target")"
  done
}

main() {
  [[ $EUID == 0 ]] || die 'run this as root'
  host=$(host_release)
  mkdir -p "$PARTS/pkg"
  exec 9>"$PARTS/.lock"
  flock 9
  local stamp
  stamp="$PARTS_VERSION $host $(dpkg --print-architecture)"
  local stamp_file="$PARTS/stamp"
  if [[ -e $stamp_file && $(<"$stamp_file") != "$stamp" ]]; then
    say 'the cache is of another version: making it again'
    rm -rf -- "$stamp_file" "${PARTS:?}"/{pkg,bin} "$PARTS"/containerd-*
    mkdir -p "$PARTS/pkg"
  fi
  install_system_packages
  if [[ ! -e $stamp_file ]]; then
    work=$(mktemp -d)
    # A variable and not a call in place: a failure inside a here-document would pass unseen.
    mirror_url=$(mirror)
    part runc make_runc
    part docker-registry make_registry
    part containerd-1.6 make_containerd bookworm
    part containerd-1.7 make_containerd trixie
    part containerd-2.1 make_containerd forky
    part erofs-utils make_erofs_utils
    local runc="$PARTS/pkg/runc/usr/sbin/runc"
    [[ -x $runc ]] || runc="$PARTS/pkg/runc/usr/bin/runc"
    links "$runc" "$PARTS/pkg/docker-registry/usr/bin/docker-registry" "$PARTS"/pkg/erofs-utils/wrap/*.erofs "$(command -v skopeo)"
    local version
    for version in 1.6 1.7 2.1; do
      ln -sfn -- "pkg/containerd-$version" "$PARTS/containerd-$version"
    done
    printf '%s %s\n' "$host" "$mirror_url" >"$PARTS/mirror"
    printf '%s\n' "$stamp" >"$stamp_file.new"
    mv -- "$stamp_file.new" "$stamp_file"
  fi
  part "ucloud-sdk-$SDK_VERSION" make_ucloud_sdk
  ln -sfn -- "pkg/ucloud-sdk-$SDK_VERSION" "$PARTS/ucloud-sdk"
  printf '%s\n' "$PARTS"
}

# scripts/parts-kubernetes.sh reads this file for its functions.
[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
