"""The page of checking.py's figures."""

from typing import Any

import numpy as np

from scalefp.experiment import made, markdown_table

PAIRS = 8  # keys whose pictures are made with bound bits and without


def table(rows: list[dict[str, Any]], bound: int) -> str:
    """One line for each kind of pictures."""
    lines = [
        [
            row["what"],
            f"{row['bits']:.3f}",
            f"{row['named']} of {row['pictures']}",
            f"{row['passed']} of {row['named']}" if row["named"] else "",
            f"{np.mean(row['agree']):.1f}" if row["agree"] else "",
            f"{row['psnr']:.1f}" if "psnr" in row else "",
        ]
        for row in rows
    ]
    head = [
        "pictures", "her bits", "she named", "of these passed", f"bound bits of {bound}",
        "dB to the picture before",
    ]  # fmt: skip
    return markdown_table(head, lines, range(1, 6))


def cost_part(spent: dict[str, Any]) -> list[str]:
    """What bound bits cost."""
    costs = [
        [label, f"{spent[f'{name}without']:{form}}", f"{spent[f'{name}with']:{form}}"]
        for label, name, form in (
            ("bits read, as they are", "as they are, ", ".4f"),
            ("bits read after JPEG 50", "JPEG 50, ", ".4f"),
            ("PSNR of two keys, dB", "two_keys_", ".1f"),
        )
    ]
    return [
        f"What bound bits cost ({PAIRS} pairs of keys, 16 pictures each, no search): pictures with "
        f"them are at {spent['psnr']:.1f} dB to those without.",
        markdown_table(["", "without bound bits", "with"], costs, range(1, 3)),
    ]


def page(results: dict[str, dict[str, Any]]) -> str:
    """A table for each run, as Markdown."""
    parts = [
        "# Lift checks",
        "She is named among 10^6 issued keys at fpr 1e-6, single images; a check passes at the "
        "same probability. Of the pictures that name nobody none is checked.",
    ]
    for name, found in results.items():
        shared = "; directions that all copies share" if found["shared"] else ""
        parts += [
            f"## {name}",
            f"Release `{found['release'][:16]}`, {found['bound_bits']} bound bits in "
            f"`{found['layer']}`{shared}, {made(found)}",
            table(found["rows"], found["bound_bits"]),
            *(cost_part(found["cost"]) if "cost" in found else []),
            f"![The rows in this order, up to four pictures of each](checks-{name}.png)",
        ]
    return "\n\n".join(parts) + "\n"
