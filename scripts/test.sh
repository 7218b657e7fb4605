#!/usr/bin/env bash
# All checks and tests, on a fresh Debian 12 or 13 as root with Rust by rustup and nothing else.
#
# What they need is installed by scripts/parts.sh, parts-uml.sh and parts-kubernetes.sh into the system and into one cache folder
# outside the tree; cargo-deny and mdBook are built into that folder too, once. No test is skipped: one that cannot run fails (UIMGACC_CI=1).
#
# Usage: scripts/test.sh [--ci]     --ci: refuse a Cargo.lock that is out of date, no colours, no incremental builds
set -euo pipefail
cd "$(dirname "$0")/.."

readonly DENY_VERSION=0.20.2
readonly MDBOOK_VERSION=0.5.4

locked=()
case ${1:-} in
  '') ;;
  --ci)
    locked=(--locked)
    export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
    ;;
  *)
    printf 'usage: %s [--ci]\n' "$0" >&2
    exit 1
    ;;
esac

export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export UIMGACC_CI=1
# shellcheck source=scripts/build.sh
. scripts/build.sh

background=()
log=$(mktemp -d)
cleanup() {
  local group
  for group in ${background[@]+"${background[@]}"}; do
    kill -- "-$group" 2>/dev/null || true
  done
  rm -rf -- "$log"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed=()
steps=0
# step NAME COMMAND ARG...: runs it and says how long it took; a failure is kept for the end, so that one run shows all of them.
# Inside of COMMAND a failing line does not end the shell (it stands before ||), so functions must return by themselves.
step() {
  local name=$1 start=$SECONDS result=ok
  shift
  printf '\n=== %s\n' "$name"
  "$@" || result=FAILED
  [[ $result == ok ]] || failed+=("$name")
  steps=$((steps + 1))
  printf '=== %s: %s, %d s\n' "$name" "$result" $((SECONDS - start))
}

# The version of rust-toolchain.toml; recent rustups fetch it by themselves when cargo is called.
toolchain() {
  local version
  version=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
  cargo --version || rustup toolchain install "$version" --profile minimal --component rustfmt --component clippy
}

# build_tool NAME VERSION ROOT FLAG...: nothing of it needs to be fast, and a debug build without symbols takes a fraction of the time.
build_tool() {
  local name=$1 version=$2 root=$3 new="$3.new"
  shift 3
  [[ ! -x $root/bin/$name ]] || return 0
  CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$new/target" \
    cargo install --quiet --locked --debug --no-track --root "$new" --version "$version" "$@" "$name"
  rm -rf -- "$new/target" "$root"
  mv -- "$new" "$root"
}

build_tools() {
  build_tool cargo-deny "$DENY_VERSION" "$deny_root"
  build_tool mdbook "$MDBOOK_VERSION" "$mdbook_root" --no-default-features
}

# Waits for the background process $1; shows its log $2 where it failed.
finished() {
  if ! wait "$1"; then
    tail -n 100 "$2"
    return 1
  fi
}

# Our own image, of static programs: what the cluster of the tests runs.
image() {
  scripts/image.sh --profile dev "$UIMGACC_IMAGE"
}

deny() {
  local deny="$deny_root/bin/cargo-deny"
  "$deny" check --hide-inclusion-graph bans licenses sources || return 1
  # The list of advisories lies in a git repository; a machine that cannot reach it has checked all but that.
  if "$deny" fetch db >"$log/advisories" 2>&1; then
    "$deny" check --disable-fetch advisories
  else
    printf 'NOT CHECKED: advisories, because their list cannot be fetched:\n'
    tail -n 3 "$log/advisories"
  fi
}

# Both languages of the guide; what mdBook warns of is an error. That the pages are true is checked by tests: crates/guide.
guide() {
  local language said result=0
  for language in en zh; do
    said=$("$mdbook_root/bin/mdbook" build --dest-dir "$(realpath -m -- "${CARGO_TARGET_DIR:-target}/guide/$language")" "docs/$language" 2>&1) || result=1
    if [[ $result != 0 || $said == *WARN* || $said == *ERROR* ]]; then
      printf '%s\n' "$said"
      return 1
    fi
  done
}

shell() {
  git ls-files -z --cached --others --exclude-standard -- '*.sh' .ci/run 'deploy/debian/p*' | xargs -0 shellcheck
}

# The programs that take longest, longest first: they are started first.
readonly LONG=(system controller shell e2e uimgacc_store node real nfs)

# Prints "DIRECTORY PROGRAM" for each test program of the messages of cargo, in the order in which they are to be started.
test_programs() {
  sed -nE 's|.*"manifest_path":"([^"]*)/Cargo.toml".*"profile":\{[^}]*"test":true\}.*"executable":"([^"]*)".*|\1 \2|p' "$1" |
    awk -v long="${LONG[*]}" '
      BEGIN { count = split(long, names, " ") }
      {
        rank = count + 1
        for (i = count; i > 0; i--) if ($2 ~ "/" names[i] "-[0-9a-f]+$") rank = i
        print rank, $0
      }' | sort -s -n -k 1,1 | cut -d ' ' -f 2-
}

# Runs test program $2 in directory $1, and shows what it wrote when it has ended.
run_program() {
  local start=$SECONDS result=0 name=${2##*/}
  (cd "$1" && CARGO_MANIFEST_DIR="$1" "$2") >"$TEST_LOGS/$name" 2>&1 || result=1
  {
    flock 9
    printf '\n--- %s: %d s\n' "$name" $((SECONDS - start))
    cat "$TEST_LOGS/$name"
  } 9>"$TEST_LOGS/lock"
  return "$result"
}

build_tests() {
  # The end-to-end tests start all programs, whichever package they are in.
  cargo_static build "${locked[@]}" --workspace --bins || return 1
  cargo_static test "${locked[@]}" --workspace --no-run --message-format=json-render-diagnostics >"$log/built"
}

# Two programs at once: most of them wait (for clusters, other kernels, deadlines) more than they compute.
tests() {
  local result=0
  export -f run_program
  export TEST_LOGS="$log/programs.d"
  mkdir -p "$TEST_LOGS"
  test_programs "$log/built" >"$log/programs" || return 1
  [[ -s $log/programs ]] || return 1
  xargs -P 2 -L 1 bash -c 'run_program "$@"' run_program <"$log/programs" 2>&1 | tee "$log/tests" || result=1
  cargo_static test "${locked[@]}" --workspace --doc 2>&1 | tee -a "$log/tests" || result=1
  return "$result"
}

# With 11 GB free a run failed after an hour, with 16 GB it passed: report too small a disk at the start.
space() {
  local directory free
  for directory in . "${TMPDIR:-/tmp}"; do
    free=$(df --output=avail -BG "$directory" | tail -n 1 | tr -dc 0-9)
    printf '%s: %d GB free\n' "$directory" "$free"
    if ((free < 14)); then
      printf 'the tests need 14 GB: free some, for example by "cargo clean"\n'
      return 1
    fi
  done
}

step 'space' space
((${#failed[@]} == 0)) || exit 1
step 'parts' scripts/parts.sh
((${#failed[@]} == 0)) || exit 1
UIMGACC_PARTS=$(scripts/parts.sh)
export UIMGACC_PARTS
deny_root="$UIMGACC_PARTS/cargo-deny-$DENY_VERSION"
mdbook_root="$UIMGACC_PARTS/mdbook-$MDBOOK_VERSION"
# File systems that are modules are listed by the kernel only once they are loaded.
for module in overlay erofs loop fuse; do
  modprobe --quiet "$module" || true
done

step 'toolchain' toolchain
# In process groups of their own, so that an interrupt ends all of them.
set -m
nice scripts/parts-kubernetes.sh >"$log/kubernetes" 2>&1 &
kubernetes_build=$!
build_tools >"$log/tools" 2>&1 &
tools_build=$!
background=("$kubernetes_build" "$tools_build")
set +m
step 'kernels' scripts/parts-uml.sh
step 'format' cargo fmt --all --check
step 'shellcheck' shell
step 'clippy' cargo_static clippy "${locked[@]}" --workspace --all-targets -- -D warnings
UIMGACC_IMAGE=$(realpath -m -- "${CARGO_TARGET_DIR:-target}/image")
export UIMGACC_IMAGE
step 'build' build_tests
step 'image' image
step 'fuzz' scripts/fuzz.sh --seconds 5
step 'kubernetes' finished "$kubernetes_build" "$log/kubernetes"
step 'tests' tests
step 'tools' finished "$tools_build" "$log/tools"
step 'cargo-deny' deny
step 'guide' guide

read -r passed broken ignored < <(awk '
  /^test result:/ { passed += $4; failed += $6; ignored += $8 }
  END { print passed + 0, failed + 0, ignored + 0 }' "$log/tests")
# What failed, once more and short: the end of a long log is what people see first.
summary() {
  printf '\n=== failures\n'
  grep -E '^test .* FAILED$' "$log/tests"
  grep -A 6 -E "^thread '.*' .*panicked at" "$log/tests" | cut -c 1-1500 | head -n 200
}

if ((${#failed[@]})); then
  [[ ! -e $log/tests ]] || summary || true
  printf '\ntest.sh: FAILED (%s): %d tests passed, %d failed, %d ignored; %d s\n' "${failed[*]}" "$passed" "$broken" "$ignored" "$SECONDS"
  exit 1
fi
printf '\ntest.sh: ok: %d tests passed, %d failed, %d ignored; %d steps in %d s\n' "$passed" "$broken" "$ignored" "$steps" "$SECONDS"
