"""``scalefp attribute --lift-check``: whether images that name a holder were made by that copy."""

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from scalefp.cli.reading import Images
from scalefp.cli.table import Row
from scalefp.errors import UserError

if TYPE_CHECKING:
    from scalefp.release.model import Model
    from scalefp.release.reader import Reader


def checkable(model: "Reader") -> "Model":
    """The release, if its copies carry what a lift check looks for.

    Raises:
        UserError: they do not.
    """
    from scalefp.pretrained.checking import binding_of
    from scalefp.release.model import Model

    if not isinstance(model, Model):
        raise UserError(
            "a lift check takes a release of this project's generator, with bound bits: see "
            "`scalefp release bind`"
        )
    binding_of(model)
    return model


def in_text(checks: list[dict[str, Any]]) -> str:
    """What the checks of one holder's images say, for the end of a line."""
    passed = sum(one["passed"] for one in checks)
    if len(checks) > 1:
        return f"lift check passed by {passed} of {len(checks)} images"
    (one,) = checks
    bits = f"{one['agree']} of {one['bits']} bound bits, p = {one['p_value']:.2g}"
    if passed:
        return f"lift check passed ({bits})"
    return f"lift check NOT passed ({bits}): another may have laid this key on, or much was changed"


def checked(
    rows: Iterable[Row], args: argparse.Namespace, images: Images, *, progress: bool
) -> Iterator[Row]:
    """Verdicts with a lift check on the first images of each source that names anybody.

    Args:
        progress: show a bar on standard error.
    """
    from tqdm import tqdm

    from scalefp.key import Key
    from scalefp.pretrained.checking import TICKS, lift_check

    model, where = checkable(images.model), {one.name: one for one in images.gathered.images}
    n_bits = model.config.n_bits
    for row in rows:
        lines = [row.line]
        for named in row.entry.get("attributed", ()):
            names = row.entry["images"][: args.lift_check]
            key, checks = Key.from_hex(named["key"], n_bits), []
            bar = tqdm(
                total=len(names) * TICKS, unit="step", desc="lift check", leave=False,
                disable=not progress,
            )  # fmt: skip
            with bar:
                for name in names:
                    picture = where[name].read(args.max_megapixels * 10**6)
                    found = lift_check(model, key, picture, fpr=args.fpr, tick=bar.update)
                    checks.append({"image": name, **vars(found)})
            named["lift_checks"] = checks
            of = f"{named['holder']}: " if len(row.entry["attributed"]) > 1 else ""
            lines.append(f"{of}{in_text(checks)}")
        yield Row(row.entry, "; ".join(lines))
