#!/usr/bin/env bash
# What a GPU makes of the training step; on a machine with a GPU, in the root of the repository; about three minutes.
# PY: python with torch (CUDA) and the project's dependencies; OUT: folder for results.
set -u
PY=${PY:-python} OUT=${OUT:-runs/gpu}; mkdir -p "$OUT"; export PYTHONPATH=$PWD OMP_NUM_THREADS=4
echo "== captured steps are the plain steps (same start, same draws)"
$PY - <<'PY' 2>&1 | tee "$OUT/capture.txt"
import logging, time, torch
logging.basicConfig(level=logging.WARNING)
from scalefp.bench.gpu import configuration
from scalefp.bench.training import noise_pictures
from scalefp.training.distributed import World
from scalefp.training.state import TrainingState
from scalefp.training.step import Step
device = torch.device("cuda")
def run(captured, steps=40):
    config = configuration(64, 64); config.loss.weight_noise = 0.0
    state = TrainingState.build(config, device)
    state.progress.readable_at, state.progress.n_active = 0, config.model.n_bits
    step = Step(config, state, noise_pictures(64, 64), World(0, 1, device), torch.bfloat16)
    step.captured._wanted = step.captured._wanted and captured
    rows = []
    for _ in range(steps):
        terms = step(); state.progress.images += 64
        rows.append({k: round(float(v), 4) for k, v in terms.items()})
    print("captured" if captured else "plain", "graphs:", len(step.captured.graphs), rows[0], rows[-1], sep="\n  ")
    torch.cuda.synchronize(); begun = time.perf_counter()
    for _ in range(32): step(); state.progress.images += 64
    torch.cuda.synchronize(); print("  images/s", round(32 * 64 / (time.perf_counter() - begun)))
    return rows
a, b = run(False), run(True)
for i in (0, 3, 8, 20, 39): print(i, {k: (a[i][k], b[i][k]) for k in ("adversarial", "bits", "consistency")})
PY
echo "== ten seconds of the real command"; rm -rf "$OUT/run"
$PY -m scalefp.train experiment=emoji run.device=cuda schedule.total_images=40960 run.log_steps=40 run.tensorboard=false hydra.run.dir="$OUT/run" 2>&1 | tail -5
tail -3 "$OUT/run/log.jsonl"
echo "== too large a batch"
$PY -m scalefp.train experiment=emoji run.device=cuda optimizer.batch=32768 schedule.total_images=65536 run.tensorboard=false hydra.run.dir="$OUT/large" 2>&1 | tail -2
echo "== bench"
$PY -c 'import sys; from scalefp.cli import main; sys.exit(main())' bench --device cuda --out "$OUT" --force | tee "$OUT/bench.txt"
