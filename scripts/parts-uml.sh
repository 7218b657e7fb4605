#!/usr/bin/env bash
# Installs what tests with other kernels and with a real NFS server need: Linux as a process (Debian's user-mode-linux 6.1, 6.12 and
# 7.2) and the programs of an NFS server. For amd64 Debian 12 or 13 as root, after scripts/parts.sh, into the same cache folder:
#
#   $UIMGACC_PARTS/uml/kernels/{6.1,6.12,7.2}/  linux, with the loader and the C library that it was made for
#   $UIMGACC_PARTS/uml/modules/<release>/       its modules, as below /lib/modules
#   $UIMGACC_PARTS/uml/nfs/                     rpcbind, nfs-kernel-server and their libraries, unpacked
#
# Everything comes from Debian's packages, fetched by an apt configuration of its own. Nothing is installed into the system.
# Safe to run again (then it does nothing), to interrupt, and to run twice at once.
# Usage: scripts/parts-uml.sh        install; prints the folder
set -euo pipefail

# Raise this when the lists below change.
readonly UML_VERSION=1
readonly PARTS=${UIMGACC_PARTS:-${XDG_CACHE_HOME:-$HOME/.cache}/uimgacc/parts}
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# Of Debian 12 whatever this machine is: its libraries run with any newer C library.
readonly NFS_PACKAGES=(
  rpcbind nfs-kernel-server nfs-common libtirpc3 libtirpc-common libwrap0 libnsl2 libgssapi-krb5-2 libkrb5-3 libk5crypto3
  libcom-err2 libkrb5support0 libkeyutils1
)

say() { printf 'parts-uml: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

work=
cleanup() { [[ -z $work ]] || rm -rf -- "$work"; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

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

# kernel RELEASE FOLDER: the kernel of that release, to be started in its own folder with LD_LIBRARY_PATH=.
kernel() {
  local release=$1 uml=$2 root="$work/uml-$1" modules version target
  unpack "$release" "$root" user-mode-linux libc6
  modules=$(cd "$root/usr/lib/uml/modules" && echo ./*)
  modules=${modules#./}
  version=$(cut -d. -f1,2 <<<"$modules")
  target="$uml/kernels/$version"
  mkdir -p "$target" "$uml/modules"
  find "$root" -name libc.so.6 -exec cp -L -- {} "$target/" \;
  find "$root" -path '*/x86_64-linux-gnu/ld-linux-x86-64.so.2' -exec cp -L -- {} "$target/" \;
  # The kernel's addresses are fixed, so a loader that is started first would be in its way: the program itself must name the one of
  # its own release. The name has the same length, and is relative to the folder that the kernel is started in.
  sed 's#/lib64/ld-linux-x86-64\.so\.2#.//////ld-linux-x86-64.so.2#' "$root/usr/bin/linux.uml" >"$target/linux"
  chmod 755 "$target/linux"
  (cd "$target" && env LD_LIBRARY_PATH=. ./linux --version >&2)
  mv -- "$root/usr/lib/uml/modules/$modules" "$uml/modules/"
}

main() {
  [[ $EUID == 0 ]] || die 'run this as root'
  [[ $(dpkg --print-architecture) == amd64 ]] || die 'user-mode Linux is for amd64 only'
  [[ -e $PARTS/mirror ]] || die 'run scripts/parts.sh first'
  exec 9>"$PARTS/.lock-uml"
  flock 9
  if [[ $(cat "$PARTS/uml/stamp" 2>/dev/null) != "$UML_VERSION" ]]; then
    local new="$PARTS/.new-uml" release
    read -r _ mirror_url <"$PARTS/mirror"
    work=$(mktemp -d)
    rm -rf -- "$new" "$PARTS/uml"
    mkdir -p "$new"
    for release in bookworm trixie forky; do
      kernel "$release" "$new"
    done
    unpack bookworm "$new/nfs" "${NFS_PACKAGES[@]}"
    printf '%s\n' "$UML_VERSION" >"$new/stamp"
    mv -T -- "$new" "$PARTS/uml"
  fi
  printf '%s\n' "$PARTS/uml"
}

main "$@"
