#!/usr/bin/env bash
# Builds the Debian package of our programs for machines that are set up by hand: the command, the snapshotter and the API server with
# their units, manual pages, completions and an SBOM. What it does on a machine: docs/en/packages.md. The same sources give the same bytes.
#
# scripts/build.sh builds the programs. For Debian as root.
#
# Usage: scripts/deb.sh [--arch amd64|arm64] [--profile release|dev] [--version VERSION] FOLDER
#   puts uimgacc_VERSION_ARCHITECTURE.deb into FOLDER, by default with the version of Cargo.toml, and prints its name
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/build.sh
. scripts/build.sh

readonly PACKAGE=uimgacc
readonly MAINTAINER=${UIMGACC_MAINTAINER:-The uimgacc developers <uimgacc@users.noreply.github.com>}

usage() {
  sed -n '7,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

architecture=$native profile=release version='' target=
while (($#)); do
  case $1 in
    --arch) architecture=${2:?} && shift 2 ;;
    --profile) profile=${2:?} && shift 2 ;;
    --version) version=${2:?} && shift 2 ;;
    -*) usage ;;
    *) [[ -z $target ]] || usage; target=$1 && shift ;;
  esac
done
[[ -n $target ]] || usage
# A pre-release sorts before its release only behind a tilde.
version=${version:-$(version | sed 's/-/~/')-1}
SOURCE_DATE_EPOCH=$(epoch)
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root="$work/root"
umask 022

# doc FILE [NAME]: compressed, as Debian wants it.
doc() {
  gzip -n -9 <"$1" >"$root/usr/share/doc/$PACKAGE/${2:-${1##*/}}.gz"
}

build "$architecture" "$profile"
programs=()
for program in $(programs); do
  # The agent's place is the image of the cluster.
  [[ $program == uimgacc-agent ]] || programs+=("$program")
done
install_programs "$architecture" "$profile" "$root/usr/bin" "${programs[@]}"
for program in "${programs[@]}"; do
  for unit in deploy/systemd/"$program".*; do
    [[ ! -e $unit ]] || install -D -m 644 -t "$root/usr/lib/systemd/system" "$unit"
  done
done

generated "$profile" "$work/generated"
mkdir -p "$root/usr/share"
mv -- "$work/generated/man" "$root/usr/share/"
gzip -n -9 "$root"/usr/share/man/man1/*
install -D -m 644 "$work/generated/uimgacc.bash" "$root/usr/share/bash-completion/completions/uimgacc"
install -D -m 644 "$work/generated/_uimgacc" "$root/usr/share/zsh/vendor-completions/_uimgacc"
install -D -m 644 "$work/generated/uimgacc.fish" "$root/usr/share/fish/vendor_completions.d/uimgacc.fish"

mkdir -p "$root/usr/share/doc/$PACKAGE/examples"
install -m 644 deploy/debian/copyright "$root/usr/share/doc/$PACKAGE/"
install -D -m 644 deploy/debian/lintian-overrides "$root/usr/share/lintian/overrides/$PACKAGE"
for program in "${programs[@]}"; do
  name=${program#uimgacc-}
  for example in deploy/examples/{"$name","$name/$name"}.toml; do
    [[ ! -e $example ]] || install -m 644 "$example" "$root/usr/share/doc/$PACKAGE/examples/"
  done
done
for page in packages node snapshotter api; do
  [[ ! -e docs/en/$page.md ]] || doc "docs/en/$page.md"
done
doc CHANGELOG.md changelog
sbom "$work/uimgacc.cdx.json" "$work/third-party-licenses" "${programs[@]}"
doc "$work/uimgacc.cdx.json"
doc "$work/third-party-licenses"
{
  printf '%s (%s) stable; urgency=medium\n\n' "$PACKAGE" "$version"
  printf '  * Package of uimgacc %s; what has changed is in changelog.gz.\n\n' "$(version)"
  printf ' -- %s  %s\n' "$MAINTAINER" "$(LC_ALL=C date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")"
} >"$work/changelog.Debian"
doc "$work/changelog.Debian"

mkdir "$root/DEBIAN"
install -m 755 -t "$root/DEBIAN" deploy/debian/{postinst,prerm,postrm}
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
cat >"$root/DEBIAN/control" <<CONTROL
Package: $PACKAGE
Version: $version
Architecture: $architecture
Maintainer: $MAINTAINER
Installed-Size: $(du --apparent-size --summarize --block-size=1024 "$root/usr" | cut -f 1)
Recommends: ca-certificates, containerd | containerd.io
Section: admin
Priority: optional
Description: start containers from huge images in seconds
 uimgacc unpacks an image once into a store on a shared file system. On each
 node a snapshotter for containerd mounts it from there, without download and
 unpack.
 .
 This package has the command, the snapshotter with its service, and the server
 of the HTTP API where there is one. It changes nothing of containerd until
 "uimgacc node install" is run.
CONTROL

# A test build is thrown away soon.
compression=(-Zxz)
[[ $profile != dev ]] || compression=(-Zgzip -z1)
deb="${PACKAGE}_${version}_$architecture.deb"
mkdir -p "$target"
# One thread: the bytes depend on how xz splits its work.
dpkg-deb --root-owner-group --threads-max=1 "${compression[@]}" --build "$root" "$work/$deb" >&2
mv -- "$work/$deb" "$target/"
printf '%s\n' "$deb"
