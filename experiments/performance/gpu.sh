#!/usr/bin/env bash
# What a GPU makes of the training step; on a machine with a GPU, in the root of the repository.
# PY: python with torch (CUDA) and the project's dependencies; OUT: folder for results, a part of
# which is there when time runs out: what matters most comes first, and each measurement is written
# by itself.
set -u
PY=${PY:-python} OUT=${OUT:-runs/gpu}; mkdir -p "$OUT"; export PYTHONPATH=$PWD OMP_NUM_THREADS=4
say() { printf '== %(%T)T %s\n' -1 "$*"; }
say "captured steps, their speed and their kernels"
$PY experiments/performance/gpu_step.py --out "$OUT"
say "twenty seconds of the real command"; rm -rf "$OUT/run"
$PY -m scalefp.train experiment=emoji run.device=cuda schedule.total_images=64000 run.log_steps=50 \
  run.tensorboard=false hydra.run.dir="$OUT/run" 2>&1 | tail -5
tail -3 "$OUT/run/log.jsonl"
say "too large a batch"
$PY -m scalefp.train experiment=emoji run.device=cuda optimizer.batch=32768 \
  schedule.total_images=65536 run.tensorboard=false hydra.run.dir="$OUT/large" 2>&1 | tail -2
for name in gpu64 gpu128 gpu-use gpu32 gpu256; do
  say "bench $name"  # as `scalefp bench --device cuda` does, in one process instead of two
  $PY -m scalefp.bench.worker speed $name --model emoji --threads 1 --folder "$OUT" | tee "$OUT/$name.json"
done
say "done"
