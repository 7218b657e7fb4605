#!/usr/bin/env bash
# Builds the image of our own parts as an OCI layout, without a container engine: static musl binaries and the certificates of
# certificate authorities in one layer, an index over all architectures. The same sources give the same bytes.
#
# scripts/build.sh builds the programs.
#
# Usage: scripts/image.sh [--arch amd64,arm64] [--profile release|dev] FOLDER
#   push it by: skopeo copy --all oci:FOLDER docker://REGISTRY/uimgacc:VERSION
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/build.sh
. scripts/build.sh

readonly OCI=application/vnd.oci.image

usage() {
  sed -n '7,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

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
version=$(version)
mapfile -t programs < <(programs)
manifests=()
for architecture in ${architectures//,/ }; do
  build "$architecture" "$profile"
  root="$work/root"
  rm -rf -- "$root"
  install_programs "$architecture" "$profile" "$root/bin" "${programs[@]}"
  mkdir -p "$root/etc/ssl/certs"
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
