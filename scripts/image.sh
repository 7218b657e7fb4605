#!/usr/bin/env bash
# Builds the image of our own parts as an OCI layout, without a container engine: static musl binaries and the certificates of
# certificate authorities in one layer, an index over all architectures. The same sources give the same bytes.
#
# For Debian as root. The compiler for the own architecture is Debian's musl-tools; others are built by cargo-zigbuild, with the
# packages cargo-zigbuild and ziglang of PyPI in a folder of the cache.
#
# Usage: scripts/image.sh [--arch amd64,arm64] [--profile release|dev] FOLDER
#   push it by: skopeo copy --all oci:FOLDER docker://REGISTRY/uimgacc:VERSION
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PROGRAMS=(uimgacc uimgacc-agent uimgacc-snapshotter)
readonly ZIGBUILD_VERSION=0.20.1 ZIG_VERSION=0.15.2
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/uimgacc
readonly OCI=application/vnd.oci.image

usage() {
  sed -n '7,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

native=$(dpkg --print-architecture)
architectures=$native profile=release target=
while (($#)); do
  case $1 in
    --arch) architectures=${2:?} && shift 2 ;;
    --profile) profile=${2:?} && shift 2 ;;
    -*) usage ;;
    *) [[ -z $target ]] || usage; target=$1 && shift ;;
  esac
done
[[ -n $target ]] || usage

new="$(dirname "$target")/.new-$(basename "$target")-$$"
work=$(mktemp -d)
cleanup() { rm -rf -- "$new" "$work"; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

triple() {
  case $1 in
    amd64) printf 'x86_64-unknown-linux-musl' ;;
    arm64) printf 'aarch64-unknown-linux-musl' ;;
    *)
      printf 'image: no architecture %s, only amd64 and arm64\n' "$1" >&2
      return 1
      ;;
  esac
}

install_musl() {
  local install=(apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends musl-tools)
  export DEBIAN_FRONTEND=noninteractive
  # The lists of a new machine may be none, or old.
  "${install[@]}" >&2 || { apt-get -q update >&2 && "${install[@]}" >&2; }
}

# build TRIPLE ARCHITECTURE
build() {
  local packages=(-p uimgacc-cli -p uimgacc-agent -p uimgacc-snapshotter) command=(cargo build)
  rustup --quiet target add "$1"
  if [[ $2 == "$native" ]]; then
    command -v musl-gcc >/dev/null || install_musl
  else
    if [[ ! -x $CACHE/zig/bin/cargo-zigbuild ]]; then
      /usr/bin/python3 -m venv "$CACHE/zig"
      "$CACHE/zig/bin/pip" install --quiet --disable-pip-version-check "cargo-zigbuild==$ZIGBUILD_VERSION" "ziglang==$ZIG_VERSION"
    fi
    export PATH="$CACHE/zig/bin:$PATH"
    command=(cargo zigbuild)
  fi
  "${command[@]}" --quiet --locked --profile "$profile" --target "$1" "${packages[@]}" >&2
}

# blob FILE: puts it into the layout and prints "digest" and "size" of its descriptor.
blob() {
  local digest
  digest=$(sha256sum <"$1" | cut -d ' ' -f 1)
  printf '"digest":"sha256:%s","size":%d' "$digest" "$(stat -c %s "$1")"
  mv -- "$1" "$new/blobs/sha256/$digest"
}

json() {
  printf '%s' "$1" >"$work/json"
  blob "$work/json"
}

mkdir -p "$new/blobs/sha256"
folder=$([[ $profile == dev ]] && printf debug || printf '%s' "$profile")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
manifests=()
for architecture in ${architectures//,/ }; do
  triple=$(triple "$architecture")
  build "$triple" "$architecture"
  root="$work/root"
  rm -rf -- "$root"
  mkdir -p "$root/bin" "$root/etc/ssl/certs"
  for program in "${PROGRAMS[@]}"; do
    install -m 755 "${CARGO_TARGET_DIR:-target}/$triple/$folder/$program" "$root/bin/"
    # A debug build is ten times the size with its symbols.
    [[ $profile != dev || $architecture != "$native" ]] || strip "$root/bin/$program"
  done
  install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  chmod -R go-w "$root"
  tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$work/layer.tar" bin etc
  diff_id=$(sha256sum <"$work/layer.tar" | cut -d ' ' -f 1)
  gzip -n -6 <"$work/layer.tar" >"$work/layer"
  layer=$(blob "$work/layer")
  config=$(json "{\"architecture\":\"$architecture\",\"os\":\"linux\",\"config\":{\"User\":\"65532:65532\",\"Env\":[\"PATH=/bin\"],\
\"Entrypoint\":[\"/bin/uimgacc-agent\"],\"Labels\":{\"org.opencontainers.image.title\":\"uimgacc\",\"org.opencontainers.image.version\":\"$version\",\
\"org.opencontainers.image.licenses\":\"Apache-2.0\"}},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$diff_id\"]}}")
  manifest=$(json "{\"schemaVersion\":2,\"mediaType\":\"$OCI.manifest.v1+json\",\"config\":{\"mediaType\":\"$OCI.config.v1+json\",$config},\
\"layers\":[{\"mediaType\":\"$OCI.layer.v1.tar+gzip\",$layer}]}")
  manifests+=("{\"mediaType\":\"$OCI.manifest.v1+json\",$manifest,\"platform\":{\"architecture\":\"$architecture\",\"os\":\"linux\"}}")
done
list=$(
  IFS=,
  printf '%s' "${manifests[*]}"
)
index=$(json "{\"schemaVersion\":2,\"mediaType\":\"$OCI.index.v1+json\",\"manifests\":[$list]}")
printf '{"imageLayoutVersion":"1.0.0"}' >"$new/oci-layout"
printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s.index.v1+json",%s}]}' "$OCI" "$index" >"$new/index.json"
rm -rf -- "$target"
mv -T -- "$new" "$target"
