"""``scalefp decode`` and ``attribute``: what an investigator asks of image files."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from scalefp.cli.arguments import add_command, add_form, add_options, probability
from scalefp.cli.arguments import count as number
from scalefp.cli.lifting import checkable, checked
from scalefp.cli.output import NOBODY, OK, say
from scalefp.cli.reading import Images, Load, add_reading_options
from scalefp.cli.table import (
    Entry,
    Row,
    add_result_options,
    check_format,
    is_text,
    shows_lines,
    write_rows,
)
from scalefp.errors import UserError
from scalefp.files import counted
from scalefp.scan.reading import Outcome

if TYPE_CHECKING:
    from scalefp.artificial.marks import MarkRecord
    from scalefp.attribution.evidence import Attribution
    from scalefp.attribution.reading import Reading
    from scalefp.registry import Snapshot
    from scalefp.release.reader import Reader

MAX_NAMED = 10  # holders in a summary
MEANING = (
    "a name says that the fingerprint of that holder's copy is in the image, not that the holder "
    "made it: who has images of a copy can lay its fingerprint on other pictures (docs/secrets.md)"
)
CHECKABLE = (
    "copies of this release carry bound bits: --lift-check 1 looks whether the copy that an image "
    "names made it"
)


def add_image_commands(to: Any) -> None:
    decode = add_command(
        to, "decode", run_decode, "read the key in each image",
        "scalefp decode --model emoji images/0000.png --json",
    )  # fmt: skip
    add_options(decode, "model")
    add_result_options(decode)
    add_reading_options(decode)
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
    add_form(attribute)
    attribute.add_argument(
        "--fpr", type=probability, default=1e-6,
        help="accepted probability of naming anybody wrongly (default: 1e-6)",
    )  # fmt: skip
    attribute.add_argument(
        "--lift-check", type=number, metavar="N",
        help="of each source that names a holder, look whether up to N images were made by that "
        "copy, or had its key laid on; a minute each, with a release of `release bind`",
    )  # fmt: skip
    attribute.add_argument(
        "--sort", choices=("evidence",),
        help="whoever is attributed first, by p-value; the others keep their order",
    )  # fmt: skip
    attribute.add_argument(
        "--only-attributed", action="store_true", help="leave out what is attributed to nobody"
    )
    add_result_options(attribute)
    add_reading_options(attribute)


def unread(outcome: Outcome) -> str:
    """The line of an image that could not be read."""
    problem = outcome.problem.removeprefix(outcome.name)
    it = "it" if problem.startswith(" ") else ""
    return f"{outcome.name}: could not be read: {it}{problem}"


# decode


def keys_read(images: Images, *, progress: bool) -> Iterator[Row]:
    """The key read in each image."""
    for outcome in chain.from_iterable(images.read(progress=progress)):
        entry: Entry = {"image": outcome.name}
        if outcome.reading is None:
            yield Row(entry | {"error": outcome.problem}, unread(outcome))
            continue
        key, confidence = str(outcome.reading.key), float(outcome.reading.confidence[0])
        line = f"{outcome.name}  {key}  confidence {confidence:.3f}"
        yield Row(entry | {"key": key, "confidence": confidence}, line)


def show_keys(args: argparse.Namespace, load: Load) -> int:
    """Print the key that the release reads in each image."""
    check_format(args)
    images = Images(args, load)
    rows: Iterable[Row] = keys_read(images, progress=not shows_lines(args))
    if args.strict:
        rows = list(rows)
    write_rows(args, rows, ("image", "key", "confidence", "error"), lambda entry: [entry])
    for line in images.report():
        say(line)
    images.check_any()
    return OK


def run_decode(args: argparse.Namespace) -> int:
    from scalefp.loading import load

    return show_keys(args, load)


# attribute


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


COLUMNS = ("source", "image", "holder", "p_value", "matches", "revoked", "key", "error")
CHECKED = (*COLUMNS[:-1], "lift_check", "lift_p_value", COLUMNS[-1])


class Judge:
    """Attributes what was read, and counts the verdicts."""

    def __init__(self, args: argparse.Namespace, registry: "Snapshot | MarkRecord") -> None:
        self.args, self.registry, self.issued = args, registry, len(registry)
        self.sources, self.found = 0, 0
        self.holders: Counter[str] = Counter()

    def judge(self, sources: Sequence[tuple[list[str], "Reading"]]) -> list[Row]:
        """The verdict on each source: the names of its images, and their reading."""
        from scalefp.attribution.evidence import attribute_each
        from scalefp.attribution.verdict import verdict

        fpr, form = self.args.fpr, self.args.form
        answers = attribute_each([reading for _, reading in sources], self.registry, fpr, form=form)
        rows = []
        for (names, reading), found in zip(sources, answers, strict=True):
            entry = verdict(
                names, found, fpr=fpr, form=form, issued=self.issued, n_bits=reading.n_bits
            )
            source = names[0] if len(names) == 1 else f"{len(names)} images"
            whose = ", ".join(in_text(one, reading.n_bits) for one in found) or "nobody"
            rows.append(Row(entry, f"{source}: {whose}"))
            self.found += bool(found)
            self.holders.update({one.holder for one in found})
        self.sources += len(sources)
        return rows

    def each(self, images: Images, *, progress: bool) -> Iterator[Row]:
        """A verdict on each image, as soon as it is read."""
        for outcomes in images.read(progress=progress):
            read = [([one.name], one.reading) for one in outcomes if one.reading is not None]
            rows = iter(self.judge(read))
            for one in outcomes:
                yield not_judged(one) if one.reading is None else next(rows)

    def together(self, images: Images, *, progress: bool) -> Iterator[Row]:
        """A verdict on all images as one source, or on each group of them that reads alike."""
        import numpy as np

        from scalefp.attribution.reading import Reading, group_by_agreement

        outcomes = list(chain.from_iterable(images.read(progress=progress)))
        read = [one for one in outcomes if one.reading is not None]
        if read:
            logits = np.concatenate([one.reading.logits for one in read if one.reading])
            reading = Reading(logits, images.model.digest)
            groups = [list(range(len(read)))]
            if self.args.group:
                groups = group_by_agreement(reading)
            yield from self.judge(
                [([read[i].name for i in group], reading.take(group)) for group in groups]
            )
        yield from (not_judged(one) for one in outcomes if one.reading is None)

    def summary(self) -> str:
        """Such as ``20 of 520 attributed: alice 20``."""
        named = ", ".join(f"{name} {times}" for name, times in self.holders.most_common(MAX_NAMED))
        rest = len(self.holders) - MAX_NAMED
        more = f" and {counted(rest, 'more holder')}" if rest > 0 else ""
        return f"{self.found} of {self.sources} attributed{': ' if named else ''}{named}{more}"


def in_text(found: "Attribution", n_bits: int) -> str:
    revoked = f", revoked {found.revoked}" if found.revoked else ""
    return f"{found.holder} (p = {found.p_value:.2g}, {found.matches} of {n_bits} bits{revoked})"


def not_judged(outcome: Outcome) -> Row:
    return Row({"images": [outcome.name], "error": outcome.problem}, unread(outcome))


def by_evidence(rows: Iterable[Row]) -> list[Row]:
    """Attributed ones first, by p-value; the order of the others says nothing of anybody."""

    def place(row: Row) -> float:
        return min((found["p_value"] for found in row.entry.get("attributed", ())), default=2.0)

    return sorted(rows, key=place)


def in_table(entry: Entry, source: Iterator[int]) -> Iterator[Entry]:
    """The lines of a verdict in a table: one for each of its images and each who is named."""
    number = next(source)
    for image in entry["images"]:
        for found in entry.get("attributed") or [{}]:
            line = {"source": number, "image": image, "error": entry.get("error"), **found}
            for one in found.get("lift_checks", ()):
                if one["image"] == image:
                    passed = "passed" if one["passed"] else "not passed"
                    line |= {"lift_check": passed, "lift_p_value": one["p_value"]}
            yield line


def run_attribute(args: argparse.Namespace) -> int:
    from scalefp.attribution.odds import why_never
    from scalefp.loading import load

    check_format(args)
    images = Images(args, load)
    if args.lift_check:
        checkable(images.model)
    judge = Judge(args, issued_keys(args, images.model))
    never = why_never(images.model.config.n_bits, judge.issued, args.fpr)
    if never is not None:
        say(never)
    verdicts = judge.together if args.same_source or args.group else judge.each
    rows: Iterable[Row] = verdicts(images, progress=not shows_lines(args))
    if args.lift_check:
        rows = checked(rows, args, images, progress=not shows_lines(args))
    if args.sort or args.strict:
        rows = by_evidence(rows) if args.sort else list(rows)
    if args.only_attributed:
        rows = (row for row in rows if row.entry.get("attributed") != [])
    numbers = count(1)
    columns = CHECKED if args.lift_check else COLUMNS
    write_rows(args, rows, columns, lambda entry: in_table(entry, numbers))
    if len(images) > 1:
        say(judge.summary())
    if judge.found and args.registry is not None and is_text(args):
        say(MEANING)
        if getattr(images.model, "binding", None) is not None and not args.lift_check:
            say(CHECKABLE)
    for line in images.report():
        say(line)
    images.check_any()
    return OK if judge.found else NOBODY
