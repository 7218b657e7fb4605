#!/usr/bin/env bash
# Builds all files of a release: archives of static programs, Debian packages, the image of our parts, an SBOM, checksums.
#
# The same sources give the same bytes on the same release of Debian; --check sees to that: it copies the sources into two folders,
# builds in each from nothing, and compares every file. Then lintian looks at the packages.
#
# For Debian as root. On two cores a release for both architectures takes half an hour, and --check twice that.
#
# Usage: scripts/release.sh [--arch amd64,arm64] [--profile release|dev] [--check] [--sign KEY] [FOLDER]
#   FOLDER is dist where not said; what it holds is replaced. --sign: SHA256SUMS gets a signature of this key of gpg
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/build.sh
. scripts/build.sh

usage() {
  sed -n '9,10s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

architectures=amd64,arm64 profile=release check='' key='' target=
while (($#)); do
  case $1 in
    --arch) architectures=${2:?} && shift 2 ;;
    --profile) profile=${2:?} && shift 2 ;;
    --check) check=yes && shift ;;
    --sign) key=${2:?} && shift 2 ;;
    -*) usage ;;
    *) [[ -z $target ]] || usage; target=$1 && shift ;;
  esac
done
target=$(realpath -m -- "${target:-dist}")
SOURCE_DATE_EPOCH=$(epoch)
export SOURCE_DATE_EPOCH

say() { printf 'release: %s\n' "$*" >&2; }

new="$(dirname "$target")/.new-$(basename "$target")-$$"
work=$(mktemp -d "${TMPDIR:-/var/tmp}/uimgacc-release.XXXXXX")
cleanup() { rm -rf -- "$new" "$work"; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
umask 022

# packed FOLDER NAME: the tar archive of a folder on stdout, with that name on top.
packed() {
  tar -C "$1" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$2"
}

# archive ARCHITECTURE
archive() {
  local name root triple
  triple=$(triple "$1")
  name="uimgacc-$version-${triple/-unknown/}"
  root="$work/$1/$name"
  install_programs "$1" "$profile" "$root/bin" "${programs[@]}"
  mkdir -p "$root/share"
  cp -R -- "$work/generated/man" "$root/share/"
  install -D -m 644 "$work/generated/uimgacc.bash" "$root/share/bash-completion/completions/uimgacc"
  install -D -m 644 "$work/generated/_uimgacc" "$root/share/zsh/site-functions/_uimgacc"
  install -D -m 644 "$work/generated/uimgacc.fish" "$root/share/fish/vendor_completions.d/uimgacc.fish"
  install -m 644 LICENSE README.md CHANGELOG.md "$work/third-party-licenses" "$root/"
  packed "$work/$1" "$name" | gzip -n -9 >"$new/$name.tar.gz"
  rm -rf -- "$root"
}

# build_all: everything into $new.
build_all() {
  local architecture triple
  version=$(version)
  mapfile -t programs < <(programs)
  mkdir -p "$new"
  say "the image ($architectures)"
  scripts/image.sh --arch "$architectures" --profile "$profile" "$work/image"
  tar -C "$work/image" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    -cf "$new/uimgacc-image-$version.oci.tar" blobs index.json oci-layout
  sbom "$new/uimgacc-$version.cdx.json" "$work/third-party-licenses" "${programs[@]}"
  generated "$profile" "$work/generated"
  for architecture in ${architectures//,/ }; do
    say "the archive and the package ($architecture)"
    archive "$architecture"
    scripts/deb.sh --arch "$architecture" --profile "$profile" "$new" >&2
  done
  (cd "$new" && sha256sum -- * >"$work/sums" && mv -- "$work/sums" SHA256SUMS)
}

# build_elsewhere NAME: everything into $work/NAME/dist, from a copy of the sources and with nothing built before.
build_elsewhere() {
  local tree="$work/$1/sources"
  mkdir -p "$tree"
  git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -cf - | tar -C "$tree" -xf -
  CARGO_TARGET_DIR="$tree/target" "$tree/scripts/release.sh" --arch "$architectures" --profile "$profile" "$work/$1/dist" >&2
  rm -rf -- "$tree"
}

# build_twice: everything into $new, where both builds are the same.
build_twice() {
  local file differ=0
  say 'the first build'
  build_elsewhere one
  say 'the second build'
  build_elsewhere in/another/place
  for file in "$work"/one/dist/*; do
    if ! cmp -- "$file" "$work/in/another/place/dist/${file##*/}" >&2; then
      differ=$((differ + 1))
    fi
  done
  if ((differ)); then
    mkdir -p "$target.differs"
    cp -R -- "$work/one/dist" "$target.differs/one"
    cp -R -- "$work/in/another/place/dist" "$target.differs/two"
    say "$differ files differ: $target.differs has both builds"
    return 1
  fi
  say 'both builds are the same'
  mv -- "$work/one/dist" "$new"
  command -v lintian >/dev/null || apt_install lintian
  lintian --fail-on error,warning --allow-root "$new"/*.deb >&2
  say 'lintian finds nothing'
}

if [[ -n $check ]]; then
  build_twice
else
  build_all
fi
if [[ -n $key ]]; then
  command -v gpg >/dev/null || apt_install gnupg
  gpg --batch --yes --local-user "$key" --armor --detach-sign --output "$new/SHA256SUMS.asc" "$new/SHA256SUMS"
fi
rm -rf -- "$target"
mkdir -p "$(dirname "$target")"
mv -T -- "$new" "$target"
say "$(version) is in $target; sha256sum --check SHA256SUMS looks at it"
(cd "$target" && du --apparent-size --human-readable -- *)
