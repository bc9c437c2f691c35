"""The same on a GPU: training steps of ``experiment=emoji``, instances and decoding.

On a CPU everything here runs, too, slowly, which is how it is tested.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import scalefp
from scalefp.bench.rows import Row, row
from scalefp.bench.timing import Task, interleaved, rates
from scalefp.bench.training import Textbook, noise_pictures
from scalefp.config import TrainConfig
from scalefp.loading import load_model
from scalefp.training.capture import WARM_UP
from scalefp.training.compose import compose_training
from scalefp.training.distributed import World
from scalefp.training.precision import PRECISIONS, pick_precision, precision_name
from scalefp.training.state import TrainingState
from scalefp.training.step import Step

BATCH = {32: 256, 64: 128, 128: 64, 256: 16}
TEXTBOOK = 64  # pixels; the step beside the textbook's
# Few: a captured step varies little, and the textbook's takes long.
STEPS, TEXTBOOK_STEPS = 10, 3
REPEATS = 20  # of using a model
USED = 256  # images at a time of an instance, and to read


def configuration(resolution: int, batch: int | None = None) -> TrainConfig:
    """``experiment=emoji`` with as many channels at each distance from the full resolution."""
    return compose_training(
        [
            "experiment=emoji",
            f"model.resolution={resolution}",
            f"model.decoder_resolution={min(64, resolution)}",
            f"model.channel_base={64 * resolution}",
            f"optimizer.batch={batch or BATCH[resolution]}",
        ]
    )


def finished(task: Task, device: torch.device) -> Task:
    """The task and what it left to the device."""

    def run() -> None:
        task()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def second_half(config: TrainConfig, device: torch.device) -> Callable[[], Any]:
    """A training's own step without R1, as it is once images meet perturbations."""
    state = TrainingState.build(config, device)
    state.progress.readable_at, state.progress.n_active = 0, config.model.n_bits
    data = noise_pictures(config.model.resolution, config.optimizer.batch)
    step = Step(config, state, data, World(0, 1, device), pick_precision(config.run, device))

    def run() -> None:
        state.progress.images = config.optimizer.batch  # always the second, which has no R1 in it
        step()

    return run


def kernels(task: Task, device: torch.device) -> tuple[int, float]:
    """How many kernels a task runs on a GPU, and how long they take together, in seconds."""
    if device.type != "cuda":
        return 0, 0.0
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as profiler:
        task()
    events = profiler.events() or []
    on_device = [e for e in events if e.device_type == DeviceType.CUDA]
    return len(on_device), sum(e.device_time for e in on_device) / 1e6


def textbook_steps(config: TrainConfig, device: torch.device) -> dict[str, Task]:
    """The textbook's step in float32, with TF32, and in bfloat16, channels last and compiled."""
    data = noise_pictures(config.model.resolution, config.optimizer.batch)
    plain, fast = Textbook(config, data, device), Textbook(config, data, device)
    for network in fast.networks.values():
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if device.type == "cuda":
            network.compile()

    def tf32() -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        plain.step()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def bf16() -> None:
        with torch.autocast(device.type, PRECISIONS["bf16"]):
            fast.step()

    return {"fp32": plain.step, "TF32": tf32, "bf16, compiled": bf16}


def measure_step(
    resolution: int, device: torch.device, repeats: int = STEPS, batch: int | None = None
) -> list[Row]:
    """Images a second, kernels, share of time that the GPU computes, memory."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    config = configuration(resolution, batch)
    batch, own = config.optimizer.batch, finished(second_half(config, device), device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    (seconds,) = interleaved([own], repeats, warm_up=1 + WARM_UP)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    count, busy = kernels(own, device)
    where = f"{resolution} px, batch {batch}"
    what = f"training step, {precision_name(pick_precision(config.run, device))}, {where}"
    rows = [row(what, "img/s", rates(seconds, batch))]
    if resolution == TEXTBOOK:
        for name, task in textbook_steps(config, device).items():
            times = min(repeats, TEXTBOOK_STEPS)
            (others,) = interleaved([finished(task, device)], times, warm_up=2)
            beside, target = (f"textbook, {name}", rates(others, batch)), ">= 4"
            rows.append(row(what, "img/s", rates(seconds, batch), beside=beside, target=target))
    whole = sorted(seconds)[len(seconds) // 2]
    return [
        *rows,
        row(f"kernels in a step, {where}", "", [count]),
        row(f"time in which the GPU computes, {where}", "%", [100 * busy / whole]),
        row(f"memory, {where}", "GiB", [peak]),
    ]


@torch.inference_mode()
def measure_use(
    release: str, device: torch.device, repeats: int = REPEATS, used: int = USED
) -> list[Row]:
    """Images of an instance and images read, in float32."""
    model = load_model(release)
    instance = model.instantiate(scalefp.Key.random(model.config.n_bits)).to(device)
    decoder = model.decoder.to(device)
    z = torch.randn(used, model.config.latent_dim, device=device)
    images = instance(z).clamp(-1, 1)
    tasks = [finished(lambda: instance(z), device), finished(lambda: decoder(images), device)]
    generated, read = interleaved(tasks, repeats, warm_up=3)
    return [
        row(f"instance, batch {used}", "img/s", rates(generated, used)),
        row(f"decoder, one pass, batch {used}", "img/s", rates(read, used)),
    ]
