#!/usr/bin/env bash
# Everything that needs a GPU, in one command: builds the CUDA library and runs the op-case table, the models, compute-sanitizer and the benchmarks, beside PyTorch.
# Needs nvcc, CMake, a C++ compiler and python3 with torch and transformers; no Node and no network. `npm run gpu-check:pack` makes the folder that this lies in.
#   gpu-check.sh [--out FOLDER] [--seconds N] [--dry-run] [--only STEP,STEP…]
# Writes NAME.json, NAME.md and NAME.log into FOLDER, whatever fails; a step that fails or runs out of its time stops none of the others.
# --dry-run: the simulator in place of the GPU, the processor in place of PyTorch's, tiny shapes.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$here/results seconds= dry= only=
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --only) only=,$2,; shift 2 ;;
    --dry-run) dry=yes; shift ;;
    *) echo "gpu-check.sh: what is $1?" >&2; exit 2 ;;
  esac
done
seconds=${seconds:-$([ -n "$dry" ] && echo 3600 || echo 460)}
python=${PYTHON:-python3}
[ -d /usr/local/cuda/bin ] && PATH=$PATH:/usr/local/cuda/bin
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
mkdir -p "$out" && out=$(cd "$out" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/gpu-check.XXXXXX")
log=$work/log && mkdir "$log"
SECONDS=0
reserve=8 # seconds, for the report
failed=0

card=simulator
[ -z "$dry" ] && card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
card=${card:-no-gpu}
stem=$(printf '%s' "$card" | tr -c 'A-Za-z0-9' '-' | tr -s '-' | sed 's/-$//')-$(date +%Y-%m-%d)

about() { printf '%s\t%s\n' "$1" "$2" >>"$log/about.tsv"; }
finish() {
  trap - EXIT INT TERM
  "$python" "$here/report.py" "$log" "$out" "$stem" && echo "gpu-check: $out/$stem.md, $failed steps failed, ${SECONDS} s"
  rm -rf "$work"
  [ "$failed" -eq 0 ]
  exit
}
trap 'failed=$((failed + 1)); finish' INT TERM
trap finish EXIT

# step NAME LIMIT COMMAND…: runs it for at most LIMIT seconds and what is left.
step() {
  local name=$1 limit=$2 left status began=$SECONDS
  shift 2
  [ -n "$only" ] && [ "${only#*,$name,}" = "$only" ] && [ "$name" != unpack ] && [ "$name" != build ] && return
  [ -n "$dry" ] && limit=$((limit * 10)) # the simulator is slow
  left=$((seconds - SECONDS - reserve))
  [ "$left" -lt "$limit" ] && limit=$left
  if [ "$limit" -lt 3 ]; then
    status=-1
    echo "no time left" >"$log/$name.log"
  else
    timeout -k 3 "$limit" "$@" >"$log/$name.log" 2>&1
    status=$?
  fi
  [ "$status" -ne 0 ] && failed=$((failed + 1))
  printf '%s\t%s\t%s\t%s\n' "$name" "$status" $((SECONDS - began)) "$limit" >>"$log/steps.tsv"
  printf '%-16s %s, %s s\n' "$name" "$([ "$status" -eq 0 ] && echo passed || echo "failed ($status)")" $((SECONDS - began))
  [ "$status" -ne 0 ] && tail -n 4 "$log/$name.log" | cut -c1-300 | sed 's/^/    /'
  return 0
}

unpack() {
  cd "$work" && "$python" -c '
import lzma, shutil, sys, tarfile
tarfile.open(sys.argv[1] + "/payload.tar.xz", "r:xz").extractall(".", filter="data")
with lzma.open(sys.argv[1] + "/node.xz") as packed, open("node", "wb") as file: shutil.copyfileobj(packed, file)
' "$here" && chmod +x node && ./node --version
}
# The library, where the addon looks for it, and the benchmark of the kernels.
build() {
  local options=(-S "$work/tree" -B "$work/tree/build/cmake" -DCHIASMA_ADDON=OFF -DCHIASMA_TESTS=OFF -DCHIASMA_BENCH=ON) targets=(chiasma_cuda chiasma_bench_cuda)
  if [ -n "$dry" ]; then
    options+=(-DCHIASMA_CUDA=OFF -DCHIASMA_SIM=ON)
    targets=(chiasma_cuda_sim chiasma_bench_cuda)
  else
    local capability
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
    [ "$capability" = 90 ] && capability=90a
    options+=(-DCHIASMA_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$capability-real")
  fi
  cmake "${options[@]}" && cmake --build "$work/tree/build/cmake" --parallel "$(nproc)" --target "${targets[@]}"
}
devices() {
  "$work/node" -e "import('$work/tree/lib/index.js').then(async ({ listDevices }) => {
    const devices = await listDevices()
    console.log(JSON.stringify(devices, undefined, 1))
    process.exitCode = devices.some(({ id, available }) => available && id.startsWith('$device')) ? 0 : 1
  })"
}
run_test() { (cd "$work/tree" && exec "$work/node" "test/$1.js"); }
sanitize() { (cd "$work/tree" && compute-sanitizer --tool "$1" --target-processes all --error-exitcode 9 --print-limit 20 "$work/node" test/ops.js); }
export -f unpack build devices run_test sanitize

device=cuda:0 cases=$here/cases.tsv torch_device=cuda tiny=
if [ -n "$dry" ]; then device=cuda-sim cases=$here/cases-tiny.tsv torch_device=cpu tiny=--tiny; fi
export here work dry device python
export CHIASMA_TEST_DEVICE=$device
cp "$here/peak.json" "$log" 2>/dev/null
about dry "${dry:-no}"
about date "$(date +%Y-%m-%d)"
about commit "$(cat "$here/commit" 2>/dev/null)"
if [ -z "$dry" ]; then
  about driver "$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)"
  about clocks "$(nvidia-smi --query-gpu=clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit --format=csv,noheader 2>/dev/null | head -n 1) (SM, its maximum, memory; power, its limit), at the start"
  about nvcc "$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')"
fi
about pytorch "$("$python" -c 'import torch; print(torch.__version__)' 2>/dev/null)"

# Correctness first, then the kernels' own times, then what is compared.
step unpack 30 bash -c unpack
step build 130 bash -c build
step devices 20 bash -c devices
CHIASMA_TEST_PART=$([ -n "$dry" ] && echo 1/20 || echo 1/1) step ops 70 bash -c 'run_test ops'
CHIASMA_CUDA_MODELS=$([ -n "$dry" ] || echo all) step fixtures 40 bash -c 'run_test cuda/models'
step kernels 45 bash -c "'$work/tree/build/cmake/chiasma_bench_cuda' '$cases' 40 >'$log/kernels.jsonl'"
for tool in memcheck racecheck synccheck; do
  if [ -n "$dry" ] && ! command -v compute-sanitizer >/dev/null; then echo "$tool: left out, there is no GPU"; continue; fi
  CHIASMA_TEST_PART=1/12 step $tool 35 bash -c "sanitize $tool"
done
step torch-kernels 65 "$python" "$here/torch_bench.py" kernels "$cases" "$log/torch-kernels.jsonl" --device $torch_device --seconds 60
# PyTorch compiles for as long as it is let; chiasma's turn comes after it.
compiling=$((seconds - SECONDS - reserve - 60))
[ $compiling -gt 140 ] && [ -z "$dry" ] && compiling=140
step torch-models $compiling "$python" "$here/torch_bench.py" models "$work/models" "$log/torch-models.jsonl" --device $torch_device $tiny --seconds $((compiling - 8))
step models 60 "$work/node" "$work/tree/models.mjs" "$work/models" "$log/models.jsonl" $device bf16 50
