"""One recipient lays another's fingerprint on a picture of his own; a lift check tells."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

import scalefp
from folder import HOLDERS, save_images
from markup import commands, drawn_image, escape
from pictures import DIFFERENCE_GAIN, difference
from scalefp.data.images import read_image, to_float, to_pil, to_tensor, to_uint8
from scalefp.evaluation.redrawing import redrawn
from scalefp.loading import load_instance, load_model
from scalefp.pretrained.binding import bind, default_layer
from scalefp.release.binding import BindingSizes
from scalefp.release.instance import Instance
from scalefp.release.model import Model
from verdicts import Checked, Lifted

BOUND_BITS, BOUND_PSNR = 48, 36.0  # as `scalefp release bind` has them
STARTS, STEPS = 4, 100  # of the search for her picture's latent


def _bound(model: Model, out: Path, bits: int) -> Model:
    """The release with bound bits, as `scalefp release bind` writes it."""
    file = out / "bound.safetensors"
    bind(model, file, BindingSizes(default_layer(model.config), bits), psnr=BOUND_PSNR)
    return load_model(file)


def _pixels(image: Image.Image) -> torch.Tensor:
    return to_float(to_tensor([image], image.width))


def _laid_on(own: Instance, his: Image.Image, hers: Image.Image) -> Image.Image:
    """His picture plus what his copy cannot make of hers: no release, decoder or key is needed."""
    latents = torch.randn(STARTS, own.config.latent_dim, generator=torch.Generator().manual_seed(0))
    wanted = _pixels(hers)
    tries = redrawn(own, wanted.expand(STARTS, -1, -1, -1), latents, steps=STEPS)
    nearest = tries[(tries - wanted).square().mean((1, 2, 3)).argmin()]
    return to_pil(to_uint8((_pixels(his) + wanted - nearest).clamp(-1, 1)))[0]


def judge_lifted(out: Path, release: Model, fpr: float, bits: int = BOUND_BITS) -> Lifted:
    """Make the pictures, attribute them, and check those that name her."""
    model = _bound(release, out, bits)
    registry = scalefp.Registry(out / "bound.db")
    her, him = HOLDERS[:2]
    copies = {}
    for holder in (her, him):
        model.instantiate(registry.issue(holder, model=model)).save(
            out / f"{holder}-bound.safetensors"
        )
        instance = load_instance(out / f"{holder}-bound.safetensors")
        assert isinstance(instance, Instance)
        copies[holder] = instance
    hers, his = (to_pil(copies[who].sample(1, seed=50 + i))[0] for i, who in enumerate((her, him)))
    laid = _laid_on(copies[him], his, hers)
    files = save_images(out / "images" / "lifted", [hers, laid, his])
    found = []
    for title, file, honest in (
        (f"{her}'s own picture", files[0], True),
        (f"{him}'s picture with what he took from it", files[1], False),
    ):
        reading = model.decode([file], progress=False)
        named = tuple(one.holder for one in scalefp.attribute(reading, registry, fpr))
        check = scalefp.lift_check(model, registry.find(her), file, fpr=fpr)
        found.append(Checked(title, file, named, check, honest))
    return Lifted(files[2], found)


def section(lifted: Lifted, number: int, release: str) -> str:
    """Of the report.

    Args:
        release: as given, a bundled name or a path.
    """
    her, him = HOLDERS[:2]
    hers, laid = lifted.pictures
    out = laid.file.parents[2]
    images = [read_image(file) for file in (hers.file, lifted.before, laid.file)]
    heads = [f"{her}'s", f"{him}'s", f"{him}'s, with what he took", f"laid on, ×{DIFFERENCE_GAIN}"]
    cells = [f"<span>{escape(head)}</span>" for head in heads]
    cells += [drawn_image(image, "picture") for image in images]
    cells.append(drawn_image(difference(images[1], images[2]), "difference"))
    answers = "".join(
        f"<li>{escape(one.title)}: {escape(one.answer)}"
        f"{'' if one.right else ' <strong>(not as expected)</strong>'}</li>"
        for one in lifted.pictures
    )
    told = (
        f"{him.capitalize()} draws one picture of {her}'s again with his own copy, and adds what "
        f"is left between the two to a picture of his, which then names {her}. These copies carry "
        "bits that mean nothing in another picture. The lift check draws a picture again with the "
        "copy of whom it names, and looks whether they are there."
    )
    return f"""
<h2>{number}. A fingerprint laid on another's picture</h2>
<p>{escape(told)}</p>
<div class="same wider" style="grid-template-columns: repeat({len(heads)}, 1fr)">
{"".join(cells)}</div>
<ul>{answers}</ul>
{
        commands(
            f"scalefp release bind {release} --out {out}/bound.safetensors",
            f"scalefp attribute --model {out}/bound.safetensors --registry {out}/bound.db "
            f"--lift-check 1 {laid.file}",
        )
    }"""
