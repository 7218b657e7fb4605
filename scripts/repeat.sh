#!/usr/bin/env bash
# Runs tests again and again beside busy loops: a test that is decided by luck fails here.
#
# What the tests need must be there, and the image at $UIMGACC_IMAGE or in target/image: scripts/test.sh leaves all of it.
#
# Usage: scripts/repeat.sh [--times N] [--load N] TARGET FILTER...
#   TARGET   name of the test program, such as system or controller
#   FILTER   parts of the names of its tests; each is run by itself
#   --times  how often (20)
#   --load   busy loops beside it (2)
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  sed -n 's/^# \{0,1\}//; /^Usage:/,/^  --load/p' "$0" >&2
  exit 1
}

# shellcheck source=scripts/build.sh
. scripts/build.sh
times=20
load=2
while [[ ${1:-} == --* ]]; do
  case $1 in
    --times) times=${2:?} ;;
    --load) load=${2:?} ;;
    *) usage ;;
  esac
  shift 2
done
(($# >= 2)) || usage
target=$1
shift

export UIMGACC_CI=1
UIMGACC_PARTS=$(scripts/parts.sh)
UIMGACC_IMAGE=${UIMGACC_IMAGE:-$(realpath -m -- "${CARGO_TARGET_DIR:-target}/image")}
export UIMGACC_PARTS UIMGACC_IMAGE
log=$(mktemp)
loops=()
cleanup() {
  ((${#loops[@]} == 0)) || kill "${loops[@]}" 2>/dev/null || true
  rm -f -- "$log"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cargo_static build --quiet --workspace --bins
cargo_static test --quiet --workspace --no-run
for ((i = 0; i < load; i++)); do
  (while :; do :; done) &
  loops+=("$!")
done

failed=0
for ((run = 1; run <= times; run++)); do
  for filter; do
    start=$SECONDS result=ok
    cargo_static test --quiet --workspace --test "$target" -- "$filter" >"$log" 2>&1 || result=FAILED
    # A filter that no test has would pass for ever.
    grep -q 'test result: ok. [1-9]' "$log" || result=FAILED
    printf '%s %s %d of %d: %s, %d s\n' "$target" "$filter" "$run" "$times" "$result" $((SECONDS - start))
    if [[ $result == FAILED ]]; then
      failed=$((failed + 1))
      cat "$log"
    fi
  done
done
printf '%d runs, %d failed\n' $((times * $#)) "$failed"
((failed == 0))
