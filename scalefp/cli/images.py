"""``scalefp decode`` and ``attribute``: what an investigator asks of image files."""

import argparse
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from scalefp.cli.arguments import add_command, add_images, add_options, probability
from scalefp.cli.output import NOBODY, OK, show
from scalefp.errors import UserError

if TYPE_CHECKING:
    from scalefp.artificial.marks import MarkRecord
    from scalefp.registry import Snapshot
    from scalefp.release.reader import Reader

SEARCH_BATCH = 64  # sources searched in one pass over the keys


def add_image_commands(to: Any) -> None:
    decode = add_command(
        to, "decode", run_decode, "read the key in each image",
        "scalefp decode --model emoji images/0000.png --json",
    )  # fmt: skip
    add_options(decode, "model")
    add_images(decode)
    attribute = add_command(
        to, "attribute", run_attribute,
        "say whose instance made each image; exit code 1 if nobody's made any of them",
        "scalefp attribute --model emoji --registry keys.db images --same-source",
    )  # fmt: skip
    add_options(attribute, "model")
    keys = attribute.add_mutually_exclusive_group(required=True)
    keys.add_argument("--registry", help="registry: an SQLite file or a database URL")
    keys.add_argument(
        "--marks", metavar="FILE",
        help="instead of a registry: OUT.marks.json of `scalefp artificial embed`; names the image "
        "of that data set whose key it is",
    )  # fmt: skip
    sources = attribute.add_mutually_exclusive_group()
    sources.add_argument(
        "--same-source",
        action="store_true",
        help="all images come from one source: judge them as one. The p-value is exact only if "
        "they were chosen without looking at any key or verdict",
    )
    sources.add_argument(
        "--group",
        action="store_true",
        help="judge as one what reads alike; a name then means some images of its group",
    )
    attribute.add_argument(
        "--form", choices=("soft", "hard"), default="soft",
        help="weigh each bit by how sure it was read (soft, default), or count matches (hard)",
    )  # fmt: skip
    attribute.add_argument(
        "--fpr", type=probability, default=1e-6,
        help="accepted probability of naming anybody wrongly (default: 1e-6)",
    )  # fmt: skip
    add_images(attribute)


def expand(arguments: Sequence[str]) -> list[str]:
    """Image files, each folder replaced by the images below it."""
    from scalefp.data.images import list_images

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
    from scalefp.loading import load

    return show_keys(args, load)


def verdict(entry: dict[str, Any], n_bits: int) -> str:
    images = entry["images"]
    source = images[0] if len(images) == 1 else f"{len(images)} images"
    names = [
        f"{found['holder']} (p = {found['p_value']:.2g}, {found['matches']} of {n_bits} bits"
        + (f", revoked {found['revoked']})" if found["revoked"] else ")")
        for found in entry["attributed"]
    ]
    return f"{source}: {', '.join(names) or 'nobody'}"


def issued_keys(args: argparse.Namespace, model: "Reader") -> "Snapshot | MarkRecord":
    """The keys to look among, issued for this release: a registry's, or a marked data set's.

    One state of the registry serves all images: its length is the number that each p-value uses.
    """
    from scalefp.registry import Registry, check_pair

    if args.registry is not None:
        snapshot = Registry(args.registry).snapshot()
        check_pair(snapshot, model)
        return snapshot
    from scalefp.artificial.marks import read_record

    record = read_record(args.marks)
    if record.model_digest != model.digest:
        raise UserError(
            f"the marks of {args.marks} were written by another release (digest "
            f"{record.model_digest[:12]}) than --model (digest {model.digest[:12]}): give that one"
        )
    return record


def run_attribute(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from scalefp.attribution.evidence import attribute_each
    from scalefp.attribution.reading import group_by_agreement
    from scalefp.loading import load

    paths, model = expand(args.images), load(args.model)
    registry = issued_keys(args, model)
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
                    "issued": len(registry),
                    "form": args.form,
                }
                entries.append(entry)
            bar.update(len(batch))
    show(args, entries, (verdict(entry, reading.n_bits) for entry in entries))
    return OK if any(entry["attributed"] for entry in entries) else NOBODY
