#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go and offline:
#
#   benchmarks/gpu_run.sh WHEELHOUSE [OUT]
#
# WHEELHOUSE was made elsewhere by docker/wheelhouse.sh for this machine's Python and CUDA; the machine has the CUDA
# toolkit and torch. Builds Horovod with NCCL, runs the tests marked gpu, trains the demo on each GPU, and measures the
# step, its roofline, the sum over the GPUs, the input decoded on the GPU, and real training. What it found lies in OUT
# (default runs/gpu); it fails if any part does, after all have run. IMAGES: a folder of prepared images (train/, val/)
# to train on; without it photographs are made.
set -euo pipefail

[[ -n ${1:-} ]] || { sed -n '2,/^set /{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 2; }
nvidia-smi -L 2>/dev/null | grep -q '^GPU' || { echo "gpu_run: no NVIDIA GPU here: nvidia-smi -L lists none" >&2; exit 3; }
wheelhouse=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${2:-runs/gpu}
mkdir -p "$out"

HVDTRAIN_WHEELHOUSE=$wheelhouse docker/setup.sh
export PATH=$PWD/.venv/bin:$PATH
if [[ $(id -u) == 0 ]]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
gpus=$(nvidia-smi -L | wc -l)
failed=()

part() {
    local name=$1
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$out/$name.log" || failed+=("$name")
}

part doctor hvdtrain doctor
part tests pytest -m gpu tests
hvdtrain data demo "$out/digits"
part train mpirun -np "$gpus" --bind-to none \
    hvdtrain train --config demo --data.dir "$out/digits" --run.dir "$out" --run.name "demo-$(date +%s)"
for precision in bf16 fp16; do
    part "step-$precision" hvdtrain bench step --device cuda --precision "$precision" --batch 256 --steps 20 --threads 4 \
        --json "$out/step-$precision.json" --figure "$out/step-$precision.png"
    part "roofline-$precision" python benchmarks/roofline.py --device cuda --precision "$precision" --batch 256 --steps 10 \
        --json "$out/roofline-$precision.json"
done
if ((gpus > 1)); then # a sum needs two
    part allreduce hvdtrain bench allreduce --device cuda --workers "$gpus" \
        --json "$out/allreduce.json" --figure "$out/allreduce.png"
fi

images=${IMAGES:-$out/photos}
[[ -d $images/train ]] || python benchmarks/photos.py "$images" --images 8192 --val-images 512
part input hvdtrain bench input --data "$images" --device gpu --batch 256 --json "$out/input.json" --figure "$out/input.png"

workers=1 # and 2, 4, …
for ((count = 2; count <= gpus; count *= 2)); do workers+=,$count; done
for source in synthetic images; do
    part "training-$source" hvdtrain bench scaling --config goyal_r50_256 --workers "$workers" --kind weak --rounds 3 \
        --precision bf16 --model.compile true --model.channels_last true --data.batch_size 256 \
        --data.source "$source" --data.dir "$images" --json "$out/training-$source.json" --figure "$out/training-$source.png"
done

if ((${#failed[@]})); then
    printf '\nfailed: %s\n' "${failed[*]}" >&2
    exit 1
fi
