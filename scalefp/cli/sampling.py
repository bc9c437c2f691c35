"""``scalefp sample``: the images of an instance as files."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

from scalefp.cli.arguments import add_command, add_options, count, seed
from scalefp.cli.output import OK, show
from scalefp.cli.outputs import add_out, check_out, is_png
from scalefp.errors import UserError
from scalefp.files import atomic_path, counted

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from scalefp.data.source import Source
    from scalefp.pretrained.instance import PretrainedInstance
    from scalefp.release.instance import Instance

NUMBER, MEGAPIXELS = 16, 5  # of images that are drawn, and of the largest that is decoded again
UNFINISHED = ".unfinished"  # in a folder that is being sampled into: by which command


def add_sample_command(to: Any) -> None:
    sample = add_command(
        to, "sample", run_sample, "write images of an instance as PNG files",
        "scalefp sample --instance a.safetensors --out images --num 16 --seed 0\n"
        "  scalefp sample --instance a.safetensors --out decoded --images photographs",
    )  # fmt: skip
    sample.add_argument("--instance", required=True, metavar="FILE", help="instance file")
    add_out(sample, "DIR", "folder, made if missing")
    sample.add_argument("--num", type=count, help="images (default: 16)")
    sample.add_argument("--seed", type=seed, help="seed of the latents (default: 0)")
    sample.add_argument(
        "--images", metavar="SRC",
        help="for an instance that is fed with pictures: folder or zip of pictures of any size, "
        "which it encodes and decodes again, under their names",
    )  # fmt: skip
    sample.add_argument(
        "--max-megapixels", type=count, default=MEGAPIXELS, metavar="N",
        help="leave out larger --images, by their header, since about a gigabyte of memory is "
        f"taken for each (default: {MEGAPIXELS})",
    )  # fmt: skip
    add_options(sample)


@contextmanager
def claimed(args: argparse.Namespace, what: str, files: Sequence[Path]) -> Iterator[None]:
    """The folder that is written into, with a note until the block has succeeded.

    What a killed run of the same command has left may be written again, for it is the same.

    Args:
        what: is written, in words that tell it from anything else.
        files: to write.

    Raises:
        UserError: one of them is there and was not made by the same command.
    """
    folder = Path(args.out)
    note, digest = folder / UNFINISHED, sha256(Path(args.instance).read_bytes()).hexdigest()
    text = f"{digest} {what}"
    ours = note.is_file() and note.read_bytes() == text.encode()
    for file in files if folder.exists() else []:
        check_out(file, "an image of that kind, PNG", is_png, force=args.force or ours)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(note) as temporary:
        temporary.write_text(text)
    yield
    note.unlink()


def run_sample(args: argparse.Namespace) -> int:
    if args.images is not None and (args.num is not None or args.seed is not None):
        raise UserError("--num and --seed draw latents, in place of which --images gives pictures")
    from scalefp.loading import load_instance

    instance, folder = load_instance(args.instance), Path(args.out)
    files = drawn(args, instance) if args.images is None else reconstructed(args, instance)
    done = f"{counted(len(files), 'image')} in {folder}"
    show(args, [str(file) for file in files], [done], done)
    return OK


def drawn(args: argparse.Namespace, instance: "Instance | PretrainedInstance") -> list[Path]:
    """Write images of latents that are drawn; their files."""
    from scalefp.data.images import save_png, to_pil

    number = NUMBER if args.num is None else args.num
    start = args.seed or 0
    digits = max(4, len(str(number - 1)))
    files = [Path(args.out) / f"{i:0{digits}d}.png" for i in range(number)]
    batches = instance.stream(number, seed=start)  # never all images in memory
    first = list(islice(batches, 1))  # what cannot be drawn is said before anything is written
    with claimed(args, f"seed {start}, {number} images", files):
        unwritten = iter(files)
        for batch in chain(first, batches):
            for picture in to_pil(batch):
                save_png(next(unwritten), picture)
    return files


def too_large(source: "Source", index: int, megapixels: int) -> str | None:
    """Why a picture is left out, as far as its header shows; None if it is not."""
    try:
        width, height = source.size(index)
    except UserError as error:
        return str(error)
    if width * height <= megapixels * 10**6:
        return None
    return (
        f"{source.names[index]} is {width}x{height} pixels, over the limit of {megapixels} "
        "megapixels: make it smaller first, or raise --max-megapixels"
    )


def again(instance: "PretrainedInstance", picture: "Image.Image", name: str) -> "Tensor":
    """A picture of the instance's making, [1, 3, H, W]; a UserError names the one it cannot."""
    import numpy as np
    import torch

    from scalefp.data.images import to_float
    from scalefp.training.run import memory_ran_out

    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    try:
        return instance.reconstruct(to_float(pixels))
    except (MemoryError, RuntimeError) as error:
        if not memory_ran_out(error):
            raise
        size = f"{picture.width}x{picture.height}"
        raise UserError(
            f"there is too little memory to decode {name}, {size} pixels: make it smaller first"
        ) from error
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def reconstructed(
    args: argparse.Namespace, instance: "Instance | PretrainedInstance"
) -> list[Path]:
    """Write the pictures of --images as the instance makes them of what it is fed; their files."""
    from tqdm import tqdm

    from scalefp.data.dataset import report_skipped
    from scalefp.data.images import save_png, to_pil
    from scalefp.data.renaming import check_png_names, png_name
    from scalefp.data.source import Source, resolve_source
    from scalefp.pretrained.instance import PretrainedInstance

    if not isinstance(instance, PretrainedInstance) or not instance.takes_pictures:
        raise UserError(
            f"{args.instance} draws its latents and takes no pictures: leave --images out"
        )
    folder, path = Path(args.out), resolve_source(args.images)
    if path.is_file() and not is_zipfile(path):
        raise UserError(f"--images {path} is neither a folder nor a zip: give one of pictures")
    if folder.resolve().is_relative_to(path.resolve()):
        raise UserError(f"--out {folder} lies inside --images {path}: choose another --out")
    assert instance.factor  # networks that do not work say so before anything is written
    with Source(path) as source:
        reasons = [too_large(source, i, args.max_megapixels) for i in range(len(source.names))]
        usable = [i for i, why in enumerate(reasons) if why is None]
        if not usable:
            report_skipped(source, reasons)  # which raises
        check_png_names([source.names[i] for i in usable])
        files = {i: folder / png_name(source.names[i]) for i in usable}
        what = f"pictures {source.digest()}"
        with claimed(args, what, list(files.values())):
            for i in tqdm(usable, unit="img", desc="sample", delay=2, leave=False):
                try:
                    picture = again(instance, source.read(i), source.names[i])
                except UserError as error:
                    reasons[i] = str(error)
                    continue
                files[i].parent.mkdir(parents=True, exist_ok=True)
                save_png(files[i], to_pil(picture)[0])
        report_skipped(source, reasons)
    return [files[i] for i in usable if reasons[i] is None]
