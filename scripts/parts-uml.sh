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

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=parts.sh
. "$here/parts.sh"

# Raise this when the lists below change.
readonly UML_VERSION=1
# Of Debian 12 whatever this machine is: its libraries run with any newer C library.
readonly NFS_PACKAGES=(
  rpcbind nfs-kernel-server nfs-common libtirpc3 libtirpc-common libwrap0 libnsl2 libgssapi-krb5-2 libkrb5-3 libk5crypto3
  libcom-err2 libkrb5support0 libkeyutils1
)

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

main_uml() {
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

main_uml "$@"
