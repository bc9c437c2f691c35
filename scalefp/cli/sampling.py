"""``scalefp sample``: the images of an instance as files."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalefp.cli.arguments import add_command, add_options, count, seed
from scalefp.cli.output import OK, show
from scalefp.cli.outputs import add_out, check_out, is_png
from scalefp.files import atomic_path, counted

UNFINISHED = ".unfinished"  # in a folder that is being sampled into: by which command


def add_sample_command(to: Any) -> None:
    sample = add_command(
        to, "sample", run_sample, "write images of an instance as PNG files",
        "scalefp sample --instance a.safetensors --out images --num 16 --seed 0",
    )  # fmt: skip
    sample.add_argument("--instance", required=True, metavar="FILE", help="instance file")
    add_out(sample, "DIR", "folder, made if missing")
    sample.add_argument("--num", type=count, default=16, help="images (default: 16)")
    sample.add_argument("--seed", type=seed, default=0, help="seed of the latents (default: 0)")
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
    from scalefp.data.images import save_png, to_pil
    from scalefp.loading import load_instance

    instance, folder = load_instance(args.instance), Path(args.out)
    digits = max(4, len(str(args.num - 1)))
    files = [folder / f"{number:0{digits}d}.png" for number in range(args.num)]
    with claimed(args, f"seed {args.seed}, {args.num} images", files):
        unwritten = iter(files)
        for batch in instance.stream(args.num, seed=args.seed):  # never all images in memory
            for picture in to_pil(batch):
                save_png(next(unwritten), picture)
    done = f"{counted(args.num, 'image')} in {folder}"
    show(args, [str(file) for file in files], [done], done)
    return OK
