# shellcheck shell=bash
# What the image and the packages are made of: our programs as static musl binaries. Sourced by scripts/image.sh, deb.sh and release.sh,
# which run in the root of the tree.
#
# The same sources give the same bytes, wherever they lie: paths of this machine do not get into a binary.
#
# For Debian as root. The compiler for the own architecture is Debian's musl-tools; others are built by cargo-zigbuild, with the
# packages cargo-zigbuild and ziglang of PyPI in a folder of the cache.

# Each program and its package. One that the package does not have is left out.
declare -rA PACKAGE_OF=(
  [uimgacc]=uimgacc-cli
  [uimgacc-agent]=uimgacc-agent
  [uimgacc-snapshotter]=uimgacc-snapshotter
  [uimgacc-api]=uimgacc-server
)
readonly ZIGBUILD_VERSION=0.20.1 ZIG_VERSION=0.15.2
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/uimgacc

native=$(dpkg --print-architecture)

# Prints our programs, one a line, always in the same order.
programs() {
  local program
  for program in "${!PACKAGE_OF[@]}"; do
    if grep -qsFx "name = \"$program\"" "crates/${PACKAGE_OF[$program]#uimgacc-}/Cargo.toml"; then
      printf '%s\n' "$program"
    fi
  done | sort
}

# version: that of Cargo.toml.
version() {
  sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1
}

# triple ARCHITECTURE (as Debian names it)
triple() {
  case $1 in
    amd64) printf 'x86_64-unknown-linux-musl' ;;
    arm64) printf 'aarch64-unknown-linux-musl' ;;
    *)
      printf 'no architecture %s, only amd64 and arm64\n' "$1" >&2
      return 1
      ;;
  esac
}

# built ARCHITECTURE PROFILE: the folder of the programs.
built() {
  local folder=$2
  [[ $2 != dev ]] || folder=debug
  printf '%s/%s/%s' "${CARGO_TARGET_DIR:-target}" "$(triple "$1")" "$folder"
}

# epoch: when the sources are from, in seconds since 1970.
epoch() {
  printf '%s' "${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
}

# apt_install PACKAGE...
apt_install() {
  local install=(apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@")
  export DEBIAN_FRONTEND=noninteractive
  # The lists of a new machine may be none, or old.
  "${install[@]}" >&2 || { apt-get -q update >&2 && "${install[@]}" >&2; }
}

# build_environment ARCHITECTURE: exports how cargo and the compilers build for it.
build_environment() {
  local triple cargo_home target registry flags c_flags maps
  triple=$(triple "$1") || return 1
  rustup --quiet target add "$triple" || return 1
  [[ $1 != "$native" ]] || command -v musl-gcc >/dev/null || apt_install musl-tools || return 1
  # Else the name of a registry's folder would not be known below.
  cargo fetch --quiet --locked --target "$triple" >&2 || return 1
  cargo_home=$(realpath -- "${CARGO_HOME:-$HOME/.cargo}")
  target=$(realpath -m -- "${CARGO_TARGET_DIR:-target}")
  # Of those that match, the last one holds.
  maps=("$PWD=/uimgacc" "$cargo_home=/cargo" "$target=/target")
  for registry in "$cargo_home"/registry/src/*; do
    maps+=("$registry=/cargo/registry")
  done
  flags=$(printf -- '--remap-path-prefix=%s\x1f' "${maps[@]}")
  export CARGO_ENCODED_RUSTFLAGS=${flags%$'\x1f'}
  c_flags=$(printf -- '-ffile-prefix-map=%s ' "${maps[@]}")
  export "CFLAGS_${triple//-/_}=${c_flags% }"
  # A date in C code would be another one each time; and where it moved with the commits, all C code would be built anew with it.
  export SOURCE_DATE_EPOCH=0
  export CARGO_BUILD_TARGET=$triple
}

# cargo_static ARGUMENT...: cargo for static programs, as they are shipped. With all by it, tests and image are compiled once.
cargo_static() (
  build_environment "$native" || exit 1
  exec cargo "$@"
)

# build ARCHITECTURE PROFILE: all programs.
build() (
  command=(cargo build)
  if [[ $1 != "$native" ]]; then
    if [[ ! -x $CACHE/zig/bin/cargo-zigbuild ]]; then
      /usr/bin/python3 -m venv "$CACHE/zig"
      "$CACHE/zig/bin/pip" install --quiet --disable-pip-version-check "cargo-zigbuild==$ZIGBUILD_VERSION" "ziglang==$ZIG_VERSION"
    fi
    export PATH="$CACHE/zig/bin:$PATH"
    command=(cargo zigbuild)
  fi
  build_environment "$1"
  packages=()
  for program in $(programs); do
    packages+=(-p "${PACKAGE_OF[$program]}")
  done
  "${command[@]}" --quiet --locked --profile "$2" --target "$CARGO_BUILD_TARGET" "${packages[@]}" >&2
)

# install_programs ARCHITECTURE PROFILE FOLDER PROGRAM...: copies what was built.
install_programs() {
  local folder program
  folder=$(built "$1" "$2")
  for program in "${@:4}"; do
    install -D -m 755 -t "$3" "$folder/$program"
    # A debug build is ten times the size with its symbols.
    [[ $2 != dev || $1 != "$native" ]] || strip "$3/$program"
  done
}

# generated PROFILE FOLDER: what the command says of itself, for any architecture: man/man1/, uimgacc.bash, _uimgacc, uimgacc.fish.
generated() {
  local uimgacc
  build "$native" "$1"
  uimgacc=$(built "$native" "$1")/uimgacc
  mkdir -p "$2"
  "$uimgacc" --quiet man "$2/man/man1"
  "$uimgacc" completion bash >"$2/uimgacc.bash"
  "$uimgacc" completion zsh >"$2/_uimgacc"
  "$uimgacc" completion fish >"$2/uimgacc.fish"
}

# sbom SBOM LICENCES PROGRAM...: what these programs are made of.
sbom() {
  local program packages=()
  for program in "${@:3}"; do
    packages+=("${PACKAGE_OF[$program]}")
  done
  /usr/bin/python3 scripts/sbom.py "$(version)" "$1" "$2" "${packages[@]}"
}
