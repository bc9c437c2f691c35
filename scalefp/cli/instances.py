"""``scalefp instantiate`` and ``sample``: from a key to a recipient's network, and its images.

Networks are imported where they are used, here and in the files beside this one: help and the
registry answer at once.
"""

import argparse
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalefp.cli.arguments import add_command, add_key_choice, add_options, count, seed
from scalefp.cli.output import OK, show
from scalefp.cli.outputs import INSTANCES, add_out, check_out, is_png
from scalefp.errors import UserError
from scalefp.files import atomic_path, counted, open_regular

if TYPE_CHECKING:
    from scalefp.key import Key
    from scalefp.release.reader import Reader

UNFINISHED = ".unfinished"  # in a folder that is being sampled into: by which command
MAX_KEY_FILE = 4096  # characters
FORMATS = {".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "pt2"}  # by suffix of --out


def add_instance_commands(to: Any) -> None:
    instantiate = add_command(
        to, "instantiate", run_instantiate, "write the network of one key",
        "scalefp instantiate --model emoji --registry keys.db --holder recipient-a "
        "--out a.safetensors",
    )  # fmt: skip
    add_options(instantiate, "model")
    add_key_choice(instantiate)
    instantiate.add_argument("--registry", help="an SQLite file or a database URL")
    add_out(instantiate, "FILE", "file to write")
    instantiate.add_argument(
        "--format", choices=list(FORMATS.values()), help="default: by the suffix of FILE"
    )
    instantiate.add_argument(
        "--uint8", action="store_true",
        help="onnx and pt2: give clamped 8-bit images instead of floats in [-1, 1]",
    )  # fmt: skip
    instantiate.add_argument(
        "--half", action="store_true",
        help="safetensors: weights in half precision, a file of half the size",
    )  # fmt: skip
    sample = add_command(
        to, "sample", run_sample, "write images of an instance as PNG files",
        "scalefp sample --instance a.safetensors --out images --num 16 --seed 0",
    )  # fmt: skip
    sample.add_argument("--instance", required=True, metavar="FILE", help="instance file")
    add_out(sample, "DIR", "folder, made if missing")
    sample.add_argument("--num", type=count, default=16, help="images (default: 16)")
    sample.add_argument("--seed", type=seed, default=0, help="seed of the latents (default: 0)")
    add_options(sample)


def typed_key(args: argparse.Namespace) -> str:
    """The digits of --key, or what --key-file holds."""
    if args.key_file is None:
        return str(args.key)
    if args.key_file == "-":
        return sys.stdin.read(MAX_KEY_FILE) if sys.stdin is not None else ""
    with open_regular(args.key_file) as file:
        return file.read(MAX_KEY_FILE).decode(errors="replace")


def chosen_key(args: argparse.Namespace, model: "Reader") -> "Key":
    """The key to use; with a registry, only one that it issued and that is not revoked."""
    from scalefp.key import Key
    from scalefp.registry import Registry, check_pair

    if args.registry is None:
        return Key.from_hex(typed_key(args), model.config.n_bits)
    registry = Registry(args.registry)
    check_pair(registry, model)
    if args.holder is not None:
        return registry.find(args.holder)
    key = Key.from_hex(typed_key(args), model.config.n_bits)
    registry.check_usable(key)
    return key


def check_holder(args: argparse.Namespace) -> None:
    """Raise UserError if a holder is named without a registry."""
    if args.holder is not None and args.registry is None:
        raise UserError("--holder needs the --registry that knows the holder's key")


def run_instantiate(args: argparse.Namespace) -> int:
    check_holder(args)
    from scalefp.loading import load_generating

    kind = args.format or FORMATS.get(Path(args.out).suffix.lower(), "safetensors")
    if args.uint8 and kind == "safetensors":
        raise UserError("--uint8 is for --format onnx or pt2: `scalefp sample` writes 8-bit images")
    if args.half and kind != "safetensors":
        raise UserError("--half is for --format safetensors: other files compute as they store")
    check_out(args.out, *INSTANCES[kind], force=args.force)
    model = load_generating(args.model)
    instance = model.instantiate(chosen_key(args, model))
    if kind == "safetensors":
        instance.save(args.out, half=args.half)
    else:
        instance.export(args.out, format=kind, uint8=args.uint8)
    sizes = {"resolution": instance.config.resolution, "latent_dim": instance.config.latent_dim}
    result = {"out": args.out, "format": kind, **sizes, "model_digest": model.digest}
    show(args, result, [args.out], f"{args.out} was written")
    return OK


def run_sample(args: argparse.Namespace) -> int:
    from scalefp.data.images import save_png, to_pil
    from scalefp.loading import load_instance

    instance, folder = load_instance(args.instance), Path(args.out)
    digits = max(4, len(str(args.num - 1)))
    files = [folder / f"{number:0{digits}d}.png" for number in range(args.num)]
    # What a killed run of the same command has left may be written again, for it is the same.
    note, digest = folder / UNFINISHED, sha256(Path(args.instance).read_bytes()).hexdigest()
    what = f"{digest} seed {args.seed}, {args.num} images"
    ours = note.is_file() and note.read_bytes() == what.encode()
    for file in files if folder.exists() else []:
        check_out(file, "an image of that kind, PNG", is_png, force=args.force or ours)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(note) as temporary:
        temporary.write_text(what)
    unwritten = iter(files)
    for batch in instance.stream(args.num, seed=args.seed):  # never all images in memory
        for picture in to_pil(batch):
            save_png(next(unwritten), picture)
    note.unlink()
    done = f"{counted(args.num, 'image')} in {folder}"
    show(args, [str(file) for file in files], [done], done)
    return OK
