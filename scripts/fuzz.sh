#!/usr/bin/env bash
# Fuzzes the parsers of everything that comes from outside, by libFuzzer; the toolchain of the project is enough.
#
# What is found stays in fuzz/artifacts, inputs that reach new code in fuzz/corpus. A finding becomes a test.
#
# Usage: scripts/fuzz.sh [--seconds N] [TARGET...]
#   --seconds  how long each target runs (600)
#   TARGET     names of targets in fuzz/fuzz_targets, such as layer (all)
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=600
if [[ ${1:-} == --seconds ]]; then
  seconds=${2:?}
  shift 2
fi
if [[ ${1:-} == -* ]]; then
  sed -n 's/^# \{0,1\}//; /^Usage:/,/^  TARGET/p' "../scripts/fuzz.sh" >&2
  exit 1
fi
targets=("$@")
if ((${#targets[@]} == 0)); then
  for file in fuzz_targets/*.rs; do
    targets+=("$(basename "$file" .rs)")
  done
fi

target=x86_64-unknown-linux-gnu
# What `cargo fuzz` passes: counters for each branch and compare, which libFuzzer reads. A target of its own keeps them away from
# build scripts.
flags=(
  --cfg fuzzing
  -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares
)
bins=()
for name in "${targets[@]}"; do
  bins+=(--bin "$name")
done
RUSTFLAGS="${flags[*]}" cargo build --quiet --locked --release --target "$target" "${bins[@]}"

for name in "${targets[@]}"; do
  mkdir -p "corpus/$name" "artifacts/$name"
  directories=("corpus/$name")
  [[ ! -d seeds/$name ]] || directories+=("seeds/$name")
  printf '%s: %s s\n' "$name" "$seconds"
  log="artifacts/$name.log"
  if ! "target/$target/release/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
    -artifact_prefix="artifacts/$name/" "${directories[@]}" >"$log" 2>&1; then
    tail -n 60 "$log"
    exit 1
  fi
  tail -n 1 "$log"
done
