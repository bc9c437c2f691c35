"""``scalefp instantiate``: from a key to a recipient's network.

Networks are imported where they are used, here and in the files beside this one: help and the
registry answer at once.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalefp.cli.arguments import add_command, add_key_choice, add_options
from scalefp.cli.output import OK, show
from scalefp.cli.outputs import INSTANCES, add_out, check_out
from scalefp.errors import UserError
from scalefp.files import open_regular

if TYPE_CHECKING:
    from scalefp.key import Key
    from scalefp.release.reader import Reader

MAX_KEY_FILE = 4096  # characters
FORMATS = {".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "pt2"}  # by suffix of --out


def add_instantiate_command(to: Any) -> None:
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
