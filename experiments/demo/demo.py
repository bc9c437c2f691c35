"""The whole life of a fingerprint, on real files: issue, instantiate, sample, read, attribute.

    python experiments/demo/demo.py --out demo

Writes images, instances and ``report.html`` into ``--out``, a table to stdout; exit 0 if all came
out as expected, 1 if not, 2 for a mistake in one sentence. Every step is a line or two of the
library; the report shows the command that does the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

import scalefp
from folder import HOLDERS, claim, save_images, save_jpegs
from lake import landscape
from lifted import judge_lifted
from pictures import save_sheet
from report import save_report
from scalefp.artificial.embed import embed
from scalefp.data.images import to_float, to_pil, to_tensor
from scalefp.data.source import Source, resolve_source
from scalefp.loading import load_generating, load_instance, load_marker, load_model
from scalefp.metrics import psnr
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.pretrained.release import InvertingModel
from scalefp.training import train
from scalefp.training.compose import compose_training
from verdicts import (
    SUMMARY_HEAD,
    Decoded,
    Group,
    OnnxCheck,
    Recipient,
    Results,
    Training,
    judge_files,
    summary,
)

IMAGES = 16  # of each source
SHARED_LATENTS, SHARED_SEED = 4, 1000
JPEG_QUALITY = 90
FPR = 1e-6
ONNX_TOLERANCE = 1e-4  # of pixels in [-1, 1]; half a step of 8 bits is 4e-3
DATA = "emoji64"
DECODED_SIDE = 192  # pixels of the picture that others' decoder makes; reading takes their number
MARKED = "data-set"  # holder of the key that marks a data set
MARK_NOTE = "Images of a data set, marked by `scalefp artificial embed` for whoever trains on them."


def say(message: str) -> None:
    print(f"demo: {message}", file=sys.stderr, flush=True)


# Recipients.


def issue(
    model: scalefp.Model, registry: scalefp.Registry, out: Path
) -> tuple[list[Recipient], list[scalefp.Instance]]:
    """A key and an instance file for every holder; the instances come back from their files."""
    recipients, instances = [], []
    for number, holder in enumerate(HOLDERS):
        key = registry.issue(holder, model=model)
        begun = time.perf_counter()
        instance = model.instantiate(key)
        milliseconds = 1000 * (time.perf_counter() - begun)
        file = out / f"{holder}.safetensors"
        instance.save(file)
        recipients.append(Recipient(holder, key, file, seed=number + 1, milliseconds=milliseconds))
        made = load_instance(file)
        assert isinstance(made, scalefp.Instance)
        instances.append(made)
    return recipients, instances


def compare_keys(instances: Sequence[scalefp.Instance]) -> tuple[list[list[Image.Image]], float]:
    """The same latents through every instance: 8-bit images, and their mean PSNR in dB."""
    shared = [to_pil(instance.sample(SHARED_LATENTS, seed=SHARED_SEED)) for instance in instances]
    pixels = [to_float(to_tensor(images, images[0].width)) for images in shared]
    pairs = [psnr(a, b) for a, b in itertools.combinations(pixels, 2)]
    return shared, float(np.mean(pairs))


def has_onnx() -> bool:
    """Whether the extra is installed; the demo goes on without it."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def run_onnx(instance: scalefp.Instance, file: Path, seed: int) -> tuple[torch.Tensor, OnnxCheck]:
    """Export, run by ONNX Runtime, compare: images [n, 3, R, R] and how far they are off."""
    import onnxruntime

    instance.export(file, format="onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(IMAGES, instance.config.latent_dim, generator=draw)
    images = torch.from_numpy(session.run(None, {"z": z.numpy()})[0])
    with torch.inference_mode():
        gap = float((images - instance(z)).abs().max())
    return images, OnnxCheck(file=file, difference=gap, tolerance=ONNX_TOLERANCE)


# Images that no recipient made.


def data_images() -> list[Image.Image]:
    """Spread over the bundled training data."""
    with Source(resolve_source(DATA)) as entries:
        places = np.linspace(0, len(entries.names) - 1, IMAGES).astype(int)
        return [entries.read(int(place)) for place in places]


def synthetic_images(resolution: int) -> list[Image.Image]:
    """Plain colours, gradients, stripes, noise: four of each, always the same."""
    draw = np.random.default_rng(0)
    y, x = np.indices((resolution, resolution)) / resolution
    images = []
    for _ in range(IMAGES // 4):
        colours = draw.uniform(0, 255, (2, 3))
        angle, waves = draw.uniform(0, math.pi), draw.uniform(2, 12)
        ramp = (x * math.cos(angle) + y * math.sin(angle))[..., None]
        blend = colours[0] + ramp * (colours[1] - colours[0])
        stripes = np.sin(2 * math.pi * waves * ramp) > 0
        noise = Image.fromarray(draw.integers(0, 256, (resolution, resolution, 3), np.uint8))
        images += [
            Image.new("RGB", (resolution, resolution), tuple(colours[0].astype(int))),
            Image.fromarray(blend.clip(0, 255).astype(np.uint8)),
            Image.fromarray(np.where(stripes, colours[0], colours[1]).astype(np.uint8)),
            noise.filter(ImageFilter.GaussianBlur(draw.uniform(0, 3))),
        ]
    return images


# Training.


def train_tiny(folder: Path, total_images: int | None) -> Training:
    """`scalefp train experiment=tiny`, on the bundled data."""
    overrides = ["experiment=tiny", "run.tensorboard=false"]
    if total_images is not None:
        overrides.append(f"schedule.total_images={total_images}")
    config = compose_training(overrides)
    torch.set_num_threads(config.run.threads)
    begun = time.perf_counter()
    train(config, folder)
    seconds = time.perf_counter() - begun
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    # Names end in the count of images, so the last one is the latest.
    grids = {path.name.split("-")[0]: path for path in sorted((folder / "grids").glob("*.png"))}
    return Training([json.loads(line) for line in lines], grids, seconds)


# The groups of images, each saved, read and attributed.


def judge_recipients(
    out: Path,
    model: scalefp.Model,
    registry: scalefp.Registry,
    recipients: Sequence[Recipient],
    instances: Sequence[scalefp.Instance],
) -> list[Group]:
    """Images of every recipient's instance, as PNG files and as JPEG copies of these."""
    judge = partial(judge_files, model=model, registry=registry, fpr=FPR)
    groups, copies = [], []
    for recipient, instance in zip(recipients, instances, strict=True):
        holder, folder = recipient.holder, out / "images"
        files = save_images(folder / holder, to_pil(instance.sample(IMAGES, seed=recipient.seed)))
        groups.append(judge(f"{holder}, PNG files", files, expected=holder))
        files = save_jpegs(folder / f"{holder}-jpeg", files, JPEG_QUALITY)
        copies.append(judge(f"{holder}, JPEG {JPEG_QUALITY} copies", files, expected=holder))
    return groups + copies


def judge_onnx(
    out: Path,
    model: scalefp.Model,
    registry: scalefp.Registry,
    recipient: Recipient,
    instance: scalefp.Instance,
) -> tuple[Group, OnnxCheck]:
    """Images by ONNX Runtime, from a file that the instance is exported to."""
    holder = recipient.holder
    made, check = run_onnx(instance, out / f"{holder}.onnx", seed=recipient.seed + 100)
    files = save_images(out / "images" / f"{holder}-onnx", to_pil(made))
    group = judge_files(
        f"{holder}, by ONNX Runtime", files, expected=holder,
        model=model, registry=registry, fpr=FPR,
    )  # fmt: skip
    return group, check


def judge_others(out: Path, model: scalefp.Model, registry: scalefp.Registry) -> list[Group]:
    """Images that no recipient made, to be attributed to nobody."""
    judge = partial(judge_files, expected=None, model=model, registry=registry, fpr=FPR)
    folder = out / "images"
    stranger = model.instantiate(scalefp.Key.random(model.config.n_bits))
    return [
        judge(
            "a key never issued",
            save_images(folder / "never-issued", to_pil(stranger.sample(IMAGES, seed=99))),
            note="Made by this very generator under a key that the registry does not hold.",
        ),
        judge(
            "training data",
            save_images(folder / "training-data", data_images()),
            note="Pictures the release was trained on: they look alike but carry no fingerprint.",
        ),
        judge(
            "synthetic pictures",
            save_images(folder / "synthetic", synthetic_images(model.config.resolution)),
            note="Colours, gradients, stripes and noise.",
        ),
    ]


def judge_marked(out: Path, marker: scalefp.Marker) -> list[Group]:
    """A data set marked under a key of its own, JPEG copies of it, and the same not marked."""
    marks = scalefp.Registry(out / "marks.db")
    judge = partial(judge_files, model=marker, registry=marks, fpr=FPR)
    folder = out / "images"
    clean = save_images(folder / "unmarked-set", data_images())
    key = marks.issue(MARKED, model=marker)
    embed(marker, clean[0].parent, folder / MARKED, key, progress=False)
    files = [folder / MARKED / file.name for file in clean]
    copies = save_jpegs(folder / f"{MARKED}-jpeg", files, JPEG_QUALITY)
    return [
        judge("marked data set, PNG files", files, expected=MARKED, note=MARK_NOTE),
        judge(f"marked data set, JPEG {JPEG_QUALITY}", copies, expected=MARKED, note=MARK_NOTE),
        judge("the same, not marked", clean, expected=None, note="Read by the same decoder."),
    ]


def judge_decoder(out: Path, release: str) -> Decoded:
    """One picture as three recipients' copies of TAEF2's decoder make it, read from JPEG copies."""
    model = load_generating(release)
    if not isinstance(model, InvertingModel):
        raise scalefp.UserError(f"{release} is no decoder that reads by inversion")
    registry = scalefp.Registry(out / "photos.db")
    judge = partial(judge_files, model=model, registry=registry, fpr=FPR)
    folder, picture = out / "images", landscape(DECODED_SIDE)
    pixels = to_float(to_tensor([picture], DECODED_SIDE))
    (original,) = save_images(folder / "decoder", to_pil(model.reconstruct(pixels)))
    keys = {holder: registry.issue(holder, model=model) for holder in HOLDERS}
    made, groups = [original], []
    for holder, key in keys.items():
        model.instantiate(key).save(out / f"{holder}-decoder.safetensors")
        instance = load_instance(out / f"{holder}-decoder.safetensors")
        assert isinstance(instance, PretrainedInstance)
        files = save_images(folder / f"{holder}-decoder", to_pil(instance.reconstruct(pixels)))
        made += files
        files = save_jpegs(folder / f"{holder}-decoder-jpeg", files, JPEG_QUALITY)
        groups.append(judge(f"{holder}'s decoder, JPEG {JPEG_QUALITY}", files, expected=holder))
    groups.append(judge("the original decoder", [original], expected=None))
    return Decoded(release, made, groups)


# All of it.


def run(
    out: Path, release: str, marker_release: str, decoder: str | None, *, lifting: bool
) -> Results:
    """Everything but training, report and table; the files that are made lie in ``out``.

    Args:
        decoder: the release of others' decoder, None to leave it out.
        lifting: lay a fingerprint on another's picture, and check it.
    """
    begun = time.perf_counter()
    # First: a wrong name must not cost the earlier results.
    model, marker = load_model(release), load_marker(marker_release)
    claim(out)

    say(f"issuing {len(HOLDERS)} keys and making their instances")
    registry = scalefp.Registry(out / "keys.db")
    recipients, instances = issue(model, registry, out)
    shared, decibels = compare_keys(instances)

    say("sampling, reading and attributing images of the recipients")
    groups = judge_recipients(out, model, registry, recipients, instances)
    onnx = None
    if has_onnx():
        say("exporting one instance to ONNX and running it")
        group, onnx = judge_onnx(out, model, registry, recipients[0], instances[0])
        groups.append(group)
    else:
        say("ONNX is left out: install it with `pip install scalefp[onnx]`")
    say("reading images that no recipient made")
    groups += judge_others(out, model, registry)
    say("marking a data set, and reading the mark")
    groups += judge_marked(out, marker)
    decoded = None
    if decoder is not None:
        say("making a picture with copies of others' decoder, and reading it by inversion")
        decoded = judge_decoder(out, decoder)
        groups += decoded.groups
    lifted = None
    if lifting:
        say("laying a fingerprint on another's picture, and checking who made it: two minutes")
        lifted = judge_lifted(out, model, FPR)
    return Results(
        release=release,
        model=model,
        fpr=FPR,
        recipients=recipients,
        shared=shared,
        psnr=decibels,
        groups=groups,
        onnx=onnx,
        decoded=decoded,
        lifted=lifted,
        seconds=time.perf_counter() - begun,
    )


def table(results: Results) -> str:
    """The summary in aligned columns."""
    rows = [SUMMARY_HEAD, *summary(results.groups)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    if results.onnx is not None:
        verdict = "ok" if results.onnx.right else "NOT OK"
        lines.append(f"ONNX file and instance differ by {results.onnx.difference:.1e}: {verdict}")
    if results.lifted is not None:
        lines += results.lifted.lines
    return "\n".join(lines)


def page_hint(out: Path, release: str) -> str:
    """How to open the investigator's page on the keys of this demo."""
    script = Path(sys.executable).with_name("scalefp")
    program = os.path.relpath(script) if script.exists() else "scalefp"
    command = [program, "serve", "--model", release, "--registry", str(out / "keys.db")]
    return (
        f"Page: run `{shlex.join(command)}`, open http://127.0.0.1:8000 and drop files of "
        f"{out / 'images'} on it"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Issue, instantiate, sample, read, attribute.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write")
    parser.add_argument("--model", default="emoji", help="bundled name or release file")
    parser.add_argument("--marker", default="artificial-emoji", help="release that marks data sets")
    parser.add_argument(
        "--decoder", default="taef2", help="release of others' decoder; none leaves it out"
    )
    parser.add_argument(
        "--lifting", action=argparse.BooleanOptionalAction, default=True,
        help="lay a fingerprint on another's picture, and check it",
    )  # fmt: skip
    parser.add_argument(
        "--train-images", type=int, help="length of the tiny training in images, 0 for none"
    )
    options = parser.parse_args(arguments)
    try:
        decoder = None if options.decoder == "none" else options.decoder
        results = run(options.out, options.model, options.marker, decoder, lifting=options.lifting)
        save_sheet(options.out / "sheet.png", results)
        save_report(options.out / "report.html", results)
        print(table(results), flush=True)
        if options.train_images != 0:
            say("training a tiny model, to show that training runs")
            training = train_tiny(options.out / "training", options.train_images)
            save_report(options.out / "report.html", results, training)
    except scalefp.UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    print(f"Report: {options.out / 'report.html'}   Sheet: {options.out / 'sheet.png'}")
    print(page_hint(options.out, options.model))
    return 0 if results.right else 1


if __name__ == "__main__":
    sys.exit(main())
