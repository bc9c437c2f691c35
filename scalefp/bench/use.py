"""What a release is used for: instantiating, sampling and decoding, each beside a peer or limit."""

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import scalefp
from scalefp.bench.rows import Row, row
from scalefp.bench.timing import interleaved, matrix_rate, milliseconds, rates
from scalefp.data.images import save_png, to_pil, to_uint8
from scalefp.errors import UserError
from scalefp.files import atomic_path
from scalefp.loading import load_generating
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.pretrained.release import InvertingModel, PretrainedModel
from scalefp.release.instance import Instance
from scalefp.release.model import Model

BATCHES = ((32, 15), (8, 30), (1, 60))  # images at a time, repeats
MANY = 1000


def parent_of(model: Model | PretrainedModel) -> nn.Module:
    """What makes the images of any key: ``parent(inputs, bits)``."""
    return model.parent if isinstance(model, PretrainedModel) else model.generator


def target(model: Model | PretrainedModel, text: str) -> str:
    """A target of our own generator; how fast somebody else's network can be is not known."""
    return text if isinstance(model, Model) else ""


def inputs_of(instance: Instance | PretrainedInstance, count: int) -> Tensor:
    """So many inputs of an instance."""
    if isinstance(instance, PretrainedInstance):
        return instance.inputs(count, torch.Generator().manual_seed(0))
    return torch.randn(count, instance.config.latent_dim)


def convolutions(network: Callable[[Tensor], Any], batch: Tensor) -> float:
    """FLOP of the convolutions for one image of ``batch``."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(batch)
    counts = counter.get_flop_counts()["Global"]
    convolutions: int = sum(n for name, n in counts.items() if "conv" in str(name))
    return convolutions / len(batch)


def onnx_session(
    export: Callable[..., None], path: Path, threads: int
) -> Callable[[Tensor], Any] | None:
    """What runs the network that ``export`` writes to ``path``; None where ONNX is missing, or the
    network is somebody's that cannot be written so."""
    if not (importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript")):
        print("bench: ONNX is not installed and left out", file=sys.stderr)
        return None
    import onnxruntime

    try:
        if not path.exists():  # the worker with another number of threads may have written it
            export(path, format="onnx")
    except UserError as error:
        print(f"bench: ONNX is left out: {error}", file=sys.stderr)
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch.numpy()})


def measure_instantiate(release: str, threads: int, scratch: Path) -> list[Row]:
    """One key, many keys, and many keys to files."""
    model = load_generating(release)
    n_bits = model.config.n_bits
    begun = time.perf_counter()
    weights = model.instantiate(scalefp.Key.random(n_bits)).state_dict()
    first = time.perf_counter() - begun
    megabytes = sum(weight.nbytes for weight in weights.values()) / 1e6

    keys = [scalefp.Key.random(n_bits) for _ in range(MANY)]
    unused = iter(keys)
    fold, copy = interleaved(
        [
            lambda: model.instantiate(next(unused)),
            lambda: {name: weight.clone() for name, weight in weights.items()},
        ],
        repeats=300,
    )
    begun = time.perf_counter()
    for instance in model.instantiate_many(keys):
        del instance
    many = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        model.instantiate(keys[0]).save(path)
        content = path.read_bytes()

        def write() -> None:
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)

        tasks = [lambda: model.instantiate(keys[0]).save(path), write]
        saved, written = interleaved(tasks, repeats=30)
    copies = f"copy of its weights, {megabytes:.1f} MB"
    return [
        row("instantiate", "ms", milliseconds(fold), beside=(copies, milliseconds(copy)),
            target=target(model, "<= 2")),
        row(f"{MANY:,} instances, one after another", "s", [many], beside=("limit", [5.0]),
            target=target(model, "<= 1")),
        row("instantiate and save", "ms", milliseconds(saved),
            beside=("writing the same bytes", milliseconds(written))),
        row("first instance of a release, preparation included", "ms", milliseconds([first])),
    ]  # fmt: skip


@torch.inference_mode()
def measure_sample(release: str, threads: int, scratch: Path) -> list[Row]:
    """An instance against its parent under the same key, and against ONNX Runtime."""
    model = load_generating(release)
    key = scalefp.Key.random(model.config.n_bits)
    instance, parent = model.instantiate(key), parent_of(model)
    with torch.inference_mode(False):
        run_onnx = onnx_session(instance.export, scratch / "instance.onnx", threads)
    rows = []
    for batch, repeats in BATCHES:
        z = inputs_of(instance, batch)
        bits = torch.from_numpy(key.bits).expand(batch, -1)
        tasks: list[Callable[[], Any]] = [partial(instance, z), partial(parent, z, bits)]
        if run_onnx is not None:
            tasks.append(partial(run_onnx, z))
        own, parents, *onnx = (rates(each, batch) for each in interleaved(tasks, repeats))
        rows.append(
            row(f"instance, batch {batch}", "img/s", own, beside=("its parent", parents),
                target=target(model, ">= 1.5"))
        )  # fmt: skip
        for runtime in onnx:
            what = f"instance by ONNX Runtime, batch {batch}"
            rows.append(
                row(
                    what, "img/s", runtime, beside=("by PyTorch", own), target=target(model, ">= 1")
                )
            )
    flop = convolutions(instance, inputs_of(instance, 32))
    limit = ("its convolutions at the matrix rate", [matrix_rate(torch.float32) / flop])
    return [*rows, row("instance, batch 32", "img/s", [rows[0].own.median], beside=limit)]


def clear_pictures(model: Model | PretrainedModel, count: int) -> Tensor:
    """uint8 pictures of an instance that one pass of the decoder reads, as it does most."""
    pixels = to_uint8(model.instantiate(scalefp.Key.random(model.config.n_bits)).sample(2 * count))
    passes: list[None] = []
    model.decode(pixels[:1])
    hook = model._reader.register_forward_hook(lambda *_: passes.append(None))
    clear = []
    for picture in pixels.split(1):
        passes.clear()
        model.decode(picture)
        clear.append(len(passes) == 1)
    hook.remove()
    order = torch.tensor(clear).int().argsort(descending=True, stable=True)  # the clear ones first
    return pixels[order[:count]]


def measure_decode(release: str, threads: int, scratch: Path) -> list[Row]:
    """From pixels in memory, from files, and the wait for a single file."""
    model = load_generating(release)
    if isinstance(model, InvertingModel):
        side = model.resolution
        unread = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
        (inverted,) = interleaved([lambda: model.decode(unread, progress=False)], 3, warm_up=1)
        return [row(f"decode one picture of {side}x{side}", "ms", milliseconds(inverted))]
    pixels = clear_pictures(model, 32)
    images = pixels.float() / 127.5 - 1
    run_onnx = None
    if isinstance(model, Model):
        run_onnx = onnx_session(model.export_decoder, scratch / "decoder.onnx", threads)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.png" for number in range(len(pixels))]
        for file, picture in zip(files, to_pil(pixels), strict=True):
            save_png(file, picture)
        tasks: list[Callable[[], Any]] = [lambda: model.decode(pixels), lambda: model.decode(files)]
        single: list[Callable[[], Any]] = [lambda: model.decode(files[0]).key]
        single.append(lambda: model.decode(pixels[:1]))
        if run_onnx is not None:
            tasks.append(lambda: run_onnx(images))
            single.append(lambda: run_onnx(images[:1]))
        memory, disk, *onnx = (rates(each, 32) for each in interleaved(tasks, 15))
        from_file, alone, *onnx_alone = (milliseconds(each) for each in interleaved(single, 60))
    flop = convolutions(model.decoder, images)
    limit = ("its convolutions at the matrix rate", [matrix_rate(torch.float32) / flop])
    rows = [
        row("decode, batch 32, from memory", "img/s", memory, beside=limit, target=">= 0.6"),
        row("decode, batch 32, from PNG files", "img/s", disk, beside=("from memory", memory)),
        row("decode one PNG file, to its key", "ms", from_file, beside=("limit", [10.0]),
            target="<= 1"),
        row("decode one image from memory", "ms", alone),
    ]  # fmt: skip
    for runtime, runtime_alone in zip(onnx, onnx_alone, strict=True):
        beside = ("by PyTorch", memory)
        rows += [
            row("decoder by ONNX Runtime, batch 32", "img/s", runtime, beside=beside),
            row("decoder by ONNX Runtime, one image", "ms", runtime_alone,
                beside=("by PyTorch", alone)),
        ]  # fmt: skip
    unclear = torch.randint(0, 256, (1, *pixels.shape[1:]), dtype=torch.uint8)
    (searched,) = interleaved([lambda: model.decode(unclear)], 3, warm_up=1)
    what = "decode one image of noise, searched for where it came from"
    beside = ("one that reads as it is", alone)
    return [*rows, row(what, "ms", milliseconds(searched), beside=beside)]
