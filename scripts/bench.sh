#!/usr/bin/env bash
# Benchmarks against the real alternatives, side by side in one run. For Debian 12 or 13 as root.
#
# Usage: scripts/bench.sh warm-true [--rounds N]     a container that runs `true`, everything warm
set -euo pipefail
cd "$(dirname "$0")/.."
(($#)) || {
  sed -n '4s/^# //p' "$0" >&2
  exit 2
}
UIMGACC_PARTS=$(scripts/parts.sh)
export UIMGACC_PARTS
cargo build --quiet --release -p uimgacc-cli -p uimgacc-snapshotter -p uimgacc-bench
exec "${CARGO_TARGET_DIR:-target}/release/uimgacc-bench" "$@" --programs "${CARGO_TARGET_DIR:-target}/release"
