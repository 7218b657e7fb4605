#!/usr/bin/env bash
# Benchmarks against the real alternatives, side by side in one run. For Debian 12 or 13 as root.
#
# Usage: scripts/bench.sh warm-true [--rounds N]     a container that runs `true`, everything warm
#        scripts/bench.sh api [--clusters N] [--rate N] [--seconds N]     Get requests to the HTTP API, many clusters behind it
#        scripts/bench.sh start [--rounds N] [--links LIST] [--sides LIST] [--other PYTHON]     the first start of a 5.7 GB image, by the link
#        scripts/bench.sh read [--rounds N] [--links LIST]     all of that image, and an image with a file of 3 GB, against the packs themselves
#        scripts/bench.sh nodes [--nodes N] [--link NAME]     50 nodes that pull that image at the same time
#        scripts/bench.sh kubernetes [--rounds N] [--pulls N] [--containerd 1.7|2.1|2.4]     Pods on a real cluster
set -euo pipefail
cd "$(dirname "$0")/.."
(($#)) || {
  sed -n '4,9s/^# //p' "$0" >&2
  exit 2
}
# It needs a cluster and two images: the demo makes them.
[[ $1 != kubernetes ]] || exec scripts/demo.sh --kubernetes "${@:2}"
UIMGACC_PARTS=$(scripts/parts.sh)
export UIMGACC_PARTS
[[ $1 != api ]] || scripts/parts-kubernetes.sh
# image NAME PROGRAM: kept from one run to the next, by the lists that it is made of. Adds it to $images.
image() {
  local image
  image="$UIMGACC_PARTS/$1-image-1-$(cut -d ' ' -f 1 "$UIMGACC_PARTS/mirror")"
  [[ -d $image ]] || scripts/demo-image.sh "$image" "$2" "$1"
  images+=(--image "$image")
}
images=()
case $1 in
  start | nodes) image torch 'import torch; print(torch.__version__)' ;;
  read)
    image torch 'import torch; print(torch.__version__)'
    image weights 'import numpy; print(numpy.memmap("/srv/model.safetensors").max())'
    ;;
esac
set -- "$@" ${images[@]+"${images[@]}"}
cargo build --quiet --release -p uimgacc-cli -p uimgacc-snapshotter -p uimgacc-server -p uimgacc-bench
exec "${CARGO_TARGET_DIR:-target}/release/uimgacc-bench" "$@" --programs "${CARGO_TARGET_DIR:-target}/release"
