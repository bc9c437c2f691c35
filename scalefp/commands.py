"""What each subcommand of ``scalefp`` does; their arguments are in :mod:`scalefp.cli`.

Results go to standard output, progress to standard error; a mistake is a UserError. Networks and
Hydra are imported where they are used: help and the registry answer at once.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalefp.errors import UserError

if TYPE_CHECKING:
    from scalefp.key import Key
    from scalefp.reader import Reader
    from scalefp.registry import Registry

OK, NOBODY = 0, 1
SEARCH_BATCH = 64  # sources searched in one pass over the keys
FORMATS = {".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "pt2"}  # by suffix of --out


def show(args: argparse.Namespace, result: Any, lines: Iterable[str]) -> None:
    """Print ``result`` as JSON if ``--json`` was given, else the lines for a reader."""
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        for line in lines:
            print(line)


# Training and evaluation: Hydra's own overrides, errors in one sentence.


def hydra_sentence(error: Exception) -> str:
    """What Hydra or OmegaConf says of an override, without its hints for programmers."""
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, OverrideParseException):
        return (
            f"the override {error.override!r} cannot be read: write name=value, and quote a value "
            "with special characters (name='\"a=b\"')"
        )
    first = str(error).splitlines()[0].rstrip(".")
    if isinstance(error, MissingConfigException) and error.options:
        return f"{first}: choose one of {', '.join(error.options)}"
    cause = str(error.__cause__ or "").partition("\n")[0]
    return f"{first} ({cause})" if cause else first


def run_hydra(args: argparse.Namespace, module: str, config_name: str, overrides: list[str]) -> int:
    """Run the Hydra entry point ``module.main`` with a configuration of conf/."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from scalefp.config import conf_dir

    entry: Callable[[], None] = import_module(module).main
    flags = ["--multirun"] if args.multirun else []
    flags += ["--cfg", args.cfg] if args.cfg else []
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [args.prog, *flags, *overrides]
    # Otherwise Hydra prints errors in its own form and exits with 1; now it raises them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        if not flags:  # Check before Hydra writes anything into the run folder.
            with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
                config: Any = OmegaConf.to_object(compose(config_name, overrides=overrides))
            config.check()
        entry()
    except (HydraException, OmegaConfBaseException) as error:
        hint = f"`{args.prog} --cfg job` shows every option"
        raise UserError(f"{hydra_sentence(error)}; {hint}") from error
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    return OK


def run_train(args: argparse.Namespace) -> int:
    return run_hydra(args, "scalefp.train", "train", args.overrides)


def quote_path(override: str) -> str:
    """Quote a checkpoint's path: Hydra would trip over a swept run's, runs/a/seed=1,model=b/..."""
    name, _, path = override.partition("=")
    plain = name == "checkpoint" and path and not set(path) & set("\"'")
    return f'checkpoint="{path}"' if plain else override


def run_evaluate(args: argparse.Namespace) -> int:
    overrides = [*args.overrides, *(["show=json"] if args.json else [])]
    if not args.multirun:  # where a comma separates values to sweep over
        overrides = [quote_path(override) for override in overrides]
    return run_hydra(args, "scalefp.evaluate", "evaluate", overrides)


# Instances.


def check_pair(registry: "Registry", model: "Reader") -> None:
    """Raise UserError if the registry was issued for another release; an empty one passes."""
    digest = registry.model_digest
    if digest not in (None, model.digest):
        raise UserError(
            f"the registry belongs to another release (digest {str(digest)[:12]}) than the one "
            f"given (digest {model.digest[:12]}): give the release that issued its keys"
        )


def chosen_key(args: argparse.Namespace, model: "Reader") -> "Key":
    """The key to use; with a registry, only one that it issued and that is not revoked."""
    from scalefp.key import Key
    from scalefp.registry import Registry

    if args.registry is None:
        return Key.from_hex(args.key, model.config.n_bits)
    registry = Registry(args.registry)
    check_pair(registry, model)
    if args.holder is not None:
        return registry.find(args.holder)
    key = Key.from_hex(args.key, model.config.n_bits)
    registry.check_usable(key)
    return key


def check_holder(args: argparse.Namespace) -> None:
    """Raise UserError if a holder is named without a registry."""
    if args.holder is not None and args.registry is None:
        raise UserError("--holder needs the --registry that knows the holder's key")


def run_instantiate(args: argparse.Namespace) -> int:
    check_holder(args)
    for precious in (args.model, args.registry):
        files = [path for path in (precious, args.out) if path and os.path.exists(path)]
        if len(files) == 2 and os.path.samefile(*files):
            raise UserError(f"--out {args.out} would overwrite {precious}: choose another file")

    from scalefp.release import load_model

    model = load_model(args.model)
    instance = model.instantiate(chosen_key(args, model))
    kind = args.format or FORMATS.get(Path(args.out).suffix.lower(), "safetensors")
    if kind == "safetensors":
        instance.save(args.out)
    else:
        instance.export(args.out, format=kind)
    sizes = {"resolution": instance.config.resolution, "latent_dim": instance.config.latent_dim}
    result = {"out": args.out, "format": kind, **sizes, "model_digest": model.digest}
    show(args, result, [args.out])
    return OK


def run_sample(args: argparse.Namespace) -> int:
    from scalefp.images import save_png, to_pil
    from scalefp.instantiate import load_instance

    instance, folder = load_instance(args.instance), Path(args.out)
    digits = max(4, len(str(args.num - 1)))
    files = [folder / f"{number:0{digits}d}.png" for number in range(args.num)]
    present = next((file for file in files if file.exists()), None)
    if present is not None and not args.force:
        raise UserError(f"{present} exists already: choose another --out, or overwrite by --force")
    folder.mkdir(parents=True, exist_ok=True)
    unwritten = iter(files)
    for batch in instance.stream(args.num, seed=args.seed):  # never all images in memory
        for picture in to_pil(batch):
            save_png(next(unwritten), picture)
    show(args, [str(file) for file in files], [f"{args.num} images in {folder}"])
    return OK


# Images.


def expand(arguments: Sequence[str]) -> list[str]:
    """Image files, each folder replaced by the images below it."""
    from scalefp.images import list_images

    paths: list[str] = []
    for argument in arguments:
        if not os.path.isdir(argument):
            paths.append(argument)
            continue
        found = list_images(argument)
        if not found:
            raise UserError(f"folder {argument} holds no PNG, JPEG or WebP image: give another")
        paths += map(str, found)
    return paths


def show_keys(args: argparse.Namespace, load: Callable[[str], "Reader"]) -> int:
    """Print the key that the release reads in each image."""
    paths = expand(args.images)
    reading = load(args.model).decode(paths)
    rows = [
        {"image": path, "key": str(key), "confidence": float(confidence)}
        for path, key, confidence in zip(paths, reading.keys, reading.confidence, strict=True)
    ]
    show(args, rows, (f"{r['image']}  {r['key']}  confidence {r['confidence']:.3f}" for r in rows))
    return OK


def run_decode(args: argparse.Namespace) -> int:
    from scalefp.release import load

    return show_keys(args, load)


def verdict(entry: dict[str, Any], n_bits: int) -> str:
    images = entry["images"]
    source = images[0] if len(images) == 1 else f"{len(images)} images"
    names = [
        f"{found['holder']} (p = {found['p_value']:.2g}, {found['matches']} of {n_bits} bits)"
        for found in entry["attributed"]
    ]
    return f"{source}: {', '.join(names) or 'nobody'}"


def run_attribute(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from scalefp.attribution import attribute_each
    from scalefp.reading import group_by_agreement
    from scalefp.registry import Registry
    from scalefp.release import load

    paths, registry = expand(args.images), Registry(args.registry)
    issued, model = len(registry), load(args.model)
    check_pair(registry, model)
    reading = model.decode(paths)
    sources = [[image] for image in range(len(paths))]
    if args.same_source:
        sources = [list(range(len(paths)))]
    elif args.group:
        sources = group_by_agreement(reading)
    entries = []
    with tqdm(total=len(sources), desc="attribute", unit="source", delay=2, leave=False) as bar:
        for start in range(0, len(sources), SEARCH_BATCH):
            batch = sources[start : start + SEARCH_BATCH]
            answers = attribute_each(
                [reading.take(source) for source in batch], registry, args.fpr, form=args.form
            )
            for source, answer in zip(batch, answers, strict=True):
                entry = {
                    "images": [paths[image] for image in source],
                    "attributed": [
                        # Key goes out as text; vars() keeps the order of the fields.
                        vars(found) | {"key": str(found.key)}
                        for found in answer
                    ],
                    "fpr": args.fpr,
                    "issued": issued,
                    "form": args.form,
                }
                entries.append(entry)
            bar.update(len(batch))
    show(args, entries, (verdict(entry, reading.n_bits) for entry in entries))
    return OK if any(entry["attributed"] for entry in entries) else NOBODY


def run_prepare(args: argparse.Namespace) -> int:
    from scalefp.prepare import prepare

    report = prepare(args.source, args.out, args.resolution, crop=args.crop, workers=args.workers)
    result = {
        "out": str(report.out),
        "written": report.written,
        "reused": report.reused,
        "skipped": [{"name": name, "reason": reason} for name, reason in report.skipped],
    }
    line = f"{report.out}: {report.written} images, {len(report.skipped)} files skipped"
    show(args, result, [line])
    return OK
