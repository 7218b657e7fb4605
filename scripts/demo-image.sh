#!/usr/bin/env bash
# Builds an image as an OCI layout in a new folder: Debian with Python, four layers of Python packages, a program.
#
# Debian comes by mmdebstrap from the mirror that the machine's apt uses, Python packages by pip. Beside the layout stands a file
# "facts": bytes unpacked, number of layers. The folder is there whole or not at all.
#
# Usage: scripts/demo-image.sh FOLDER PROGRAM [demo|torch|weights]     PROGRAM is the text of /srv/app.py. UIMGACC_PARTS must be set.
set -euo pipefail

readonly DEBIAN_PACKAGES=python3,libgomp1,ca-certificates
# Python packages, and which of them lie in which layer, as patterns of what pip installs; the last one takes the rest.
case ${3:-demo} in
  demo)
    readonly PYTHON_PACKAGES=(
      numpy scipy pandas scikit-learn tensorflow-cpu xgboost-cpu polars opencv-python-headless matplotlib onnxruntime
    )
    readonly PYTHON_LAYERS=(
      'numpy* scipy*'
      'pandas* sklearn* scikit_learn* joblib* threadpoolctl* pytz* tzdata* dateutil* python_dateutil* six*'
      'tensorflow* keras*'
      '*'
    )
    ;;
  torch)
    # Its CUDA libraries come with it, in the versions that it names.
    readonly PYTHON_PACKAGES=(torch==2.9.1 numpy==2.3.5)
    readonly PYTHON_LAYERS=('nvidia*' 'torch* functorch*' 'triton*' '*')
    ;;
  weights)
    # A model as a file, which does not compress, as those of real models hardly do.
    readonly PYTHON_PACKAGES=(numpy==2.3.5) PYTHON_LAYERS=('*') WEIGHTS_BYTES=3000000000
    ;;
  *)
    printf 'demo-image.sh: no image %s: known are demo, torch and weights\n' "$3" >&2
    exit 2
    ;;
esac

readonly target=$1 program=$2
new="$(dirname "$target")/.new-$(basename "$target")-$$"
work=$(mktemp -d "${TMPDIR:-/var/tmp}/uimgacc-image.XXXXXX")
jobs=()

cleanup() {
  trap '' INT TERM HUP
  local job
  for job in ${jobs[@]+"${jobs[@]}"}; do
    kill -TERM "$job" 2>/dev/null || true
    wait "$job" || true
  done
  rm -rf -- "$work" "$new"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

diff_ids=()
descriptors=()
unpacked=0
# add_layer TAR: packs it as a blob and removes it.
add_layer() {
  local digest bytes
  diff_ids+=("\"sha256:$(sha256sum <"$1" | cut -d ' ' -f 1)\"")
  unpacked=$((unpacked + $(stat -c %s "$1")))
  pigz -1 --no-time --stdout "$1" >"$new/layer"
  digest=$(sha256sum <"$new/layer" | cut -d ' ' -f 1)
  bytes=$(stat -c %s "$new/layer")
  mv -- "$new/layer" "$new/blobs/sha256/$digest"
  rm -- "$1"
  descriptors+=("{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$digest\",\"size\":$bytes}")
}

# add_folder FOLDER NAME: as a layer with this top name, owned by root. Times stay: Python's compiled files name those of their sources.
add_folder() {
  tar -C "$1" --sort=name --owner=0 --group=0 --numeric-owner -cf "$work/layer.tar" "$2"
  rm -rf -- "$1"
  add_layer "$work/layer.tar"
}

# add_json TEXT: adds a blob and prints the "digest" and "size" of its descriptor.
add_json() {
  local digest
  digest=$(printf '%s' "$1" | sha256sum | cut -d ' ' -f 1)
  printf '%s' "$1" >"$new/blobs/sha256/$digest"
  printf '"digest":"sha256:%s","size":%d' "$digest" "${#1}"
}

join() {
  local IFS=,
  printf '%s' "$*"
}

mkdir -p "$new/blobs/sha256"
read -r release mirror <"$UIMGACC_PARTS/mirror"
TMPDIR="$work" mmdebstrap --quiet --variant=minbase --include="$DEBIAN_PACKAGES" --format=tar "$release" "$work/base.tar" "$mirror" &
jobs+=("$!")

# All packages at once, so that pip finds versions that go together.
python=$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
site="usr/local/lib/$python/dist-packages"
TMPDIR="$work" /usr/bin/python3 -m pip install --quiet --no-cache-dir --only-binary=:all: --disable-pip-version-check --root-user-action=ignore \
  --target "$work/packages" "${PYTHON_PACKAGES[@]}" &
jobs+=("$!")
# Waited for one by one: a signal is answered at once, and the first failure ends it.
for job in "${jobs[@]}"; do
  wait "$job"
done
jobs=()

add_layer "$work/base.tar"
for patterns in "${PYTHON_LAYERS[@]}"; do
  mkdir -p "$work/layer/$site"
  (
    cd "$work/packages"
    shopt -s nullglob
    # shellcheck disable=SC2086 # patterns, to be split and matched
    set -- $patterns
    mv -t "$work/layer/$site" -- "$@"
  )
  add_folder "$work/layer" usr
done
if [[ -n ${WEIGHTS_BYTES:-} ]]; then
  mkdir -p "$work/layer/srv"
  head -c "$WEIGHTS_BYTES" /dev/zero | openssl enc -aes-128-ctr -nosalt -pbkdf2 -pass pass:weights >"$work/layer/srv/model.safetensors"
  add_folder "$work/layer" srv
fi
mkdir -p "$work/layer/srv"
printf '%s\n' "$program" >"$work/layer/srv/app.py"
add_folder "$work/layer" srv

readonly OCI=application/vnd.oci.image
process='"Env":["PATH=/usr/local/bin:/usr/bin:/bin"],"Cmd":["python3","/srv/app.py"]'
config=$(add_json "{\"architecture\":\"$(dpkg --print-architecture)\",\"os\":\"linux\",\"config\":{$process},\
\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[$(join "${diff_ids[@]}")]}}")
manifest=$(add_json "{\"schemaVersion\":2,\"mediaType\":\"$OCI.manifest.v1+json\",\
\"config\":{\"mediaType\":\"$OCI.config.v1+json\",$config},\"layers\":[$(join "${descriptors[@]}")]}")
printf '{"imageLayoutVersion":"1.0.0"}' >"$new/oci-layout"
printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s.manifest.v1+json",%s}]}' "$OCI" "$manifest" >"$new/index.json"
printf '%d %d\n' "$unpacked" "${#diff_ids[@]}" >"$new/facts"
mv -T -- "$new" "$target"
