"""``scalefp release``: releases and the networks of trainings, made of each other."""

import argparse
from pathlib import Path
from typing import Any

from scalefp.cli.arguments import add_command, add_options, count, decibels, filled, seed
from scalefp.cli.output import OK, say, show
from scalefp.cli.outputs import NETWORK, RELEASE, add_out, check_out
from scalefp.errors import UserError

OTHER = "this is another release: it takes a registry and copies of its own"
WEAKEST, STRONGEST = 0.1, 10.0  # of --key-strength


def strength(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not WEAKEST <= value <= STRONGEST:
        raise argparse.ArgumentTypeError(
            f"a factor from {WEAKEST:g} to {STRONGEST:g} is needed, not {text[:40]!r}"
        )
    return value


def add_release_commands(to: Any) -> None:
    release = add_command(
        to, "release", None, "make releases, and take trainings apart", "scalefp release --help"
    )
    actions = release.add_subparsers(required=True, dest="action", metavar="ACTION")
    networks = add_command(
        actions, "networks", run_networks, "write the networks of a training, a file each",
        "scalefp release networks runs/first --out networks",
    )  # fmt: skip
    networks.add_argument("training", metavar="RUN", help="folder or state.pt of a training")
    add_out(networks, "DIR", "folder, made if missing; start_from=DIR goes on from it")
    add_options(networks)
    make = add_command(
        actions, "make", run_make, "make a release of networks, or of another release",
        "scalefp release make networks --out first.safetensors --key-strength 1.2",
    )  # fmt: skip
    make.add_argument(
        "source", metavar="SOURCE", help="folder of networks, or a release: a bundled name or path"
    )
    add_out(make, "FILE", "release to write, in half precision")
    make.add_argument(
        "--key-strength", type=strength, default=1.0, metavar="FACTOR",
        help="times what a key changes: above 1 is read better and seen more (default: 1)",
    )  # fmt: skip
    add_options(make)
    bind = add_command(
        actions, "bind", run_bind,
        "give a release's copies bound bits, by which `attribute --lift-check` tells whether a "
        "picture was made by a copy or had its key laid on",
        "scalefp release bind emoji --out bound.safetensors",
    )  # fmt: skip
    bind.add_argument("source", metavar="SOURCE", help="release: a bundled name or path")
    add_out(bind, "FILE", "release to write, another one, with copies and a registry of its own")
    bind.add_argument(
        "--bits", type=count, default=48, metavar="N",
        help="bound bits (default: 48); more are seen more at the same certainty of each",
    )  # fmt: skip
    bind.add_argument(
        "--psnr", type=decibels, default=36.0, metavar="DB",
        help="of pictures with bound bits to those without (default: 36)",
    )  # fmt: skip
    bind.add_argument(
        "--layer", type=filled, metavar="NAME",
        help="convolution of the instances that is changed (default: the last one at half of the "
        "picture's size)",
    )  # fmt: skip
    bind.add_argument("--seed", type=seed, default=0, help="of what is drawn (default: 0)")
    add_options(bind)


def run_networks(args: argparse.Namespace) -> int:
    from scalefp.release.networks import NETWORKS, network_file
    from scalefp.training.loop import STATE
    from scalefp.training.start import write_networks

    run, folder = Path(args.training), Path(args.out)
    for name in NETWORKS:
        check_out(network_file(folder, name), *NETWORK, force=args.force)
    paths = [str(p) for p in write_networks(run / STATE if run.is_dir() else run, folder)]
    show(args, {"out": paths}, paths, f"{len(paths)} networks were written")
    return OK


def run_make(args: argparse.Namespace) -> int:
    from scalefp.loading import load_model
    from scalefp.release.model import save_release
    from scalefp.release.networks import holds_networks
    from scalefp.training.start import read_parts

    source, out = Path(args.source), check_out(args.out, *RELEASE, force=args.force)
    binding = None
    if holds_networks(source):
        generator, decoder, note = read_parts(source)
    elif source.is_dir():
        raise UserError(
            f"{source} holds no networks of a training: `scalefp release networks RUN --out DIR` "
            "writes them"
        )
    else:
        model = load_model(args.source)
        generator, decoder, note = model.generator, model.decoder, dict(model.training)
        binding = model.binding
    if args.key_strength != 1:
        generator.strengthen_key_(args.key_strength)
        note["key_strength"] = args.key_strength * note.get("key_strength", 1.0)
    save_release(out, generator.config, generator, decoder, training=note, binding=binding)
    result = {"out": str(out), "model_digest": load_model(out).digest}
    show(args, result, [str(out)], f"{out} was written")
    return OK


def run_bind(args: argparse.Namespace) -> int:
    from scalefp.loading import load_model
    from scalefp.pretrained.binding import bind, default_layer
    from scalefp.release.binding import BindingSizes

    out, model = check_out(args.out, *RELEASE, force=args.force), load_model(args.source)
    sizes = BindingSizes(args.layer or default_layer(model.config), args.bits)
    bind(model, out, sizes, psnr=args.psnr, seed=args.seed)
    result = {"out": str(out), "model_digest": load_model(out).digest}
    show(args, result, [str(out)], f"{out} was written")
    say(OTHER)
    return OK
