"""What was read after each thing that happened to a file, as rows and as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from scalefp.experiment.tables import markdown_table


def accuracy_rows(
    accuracy: Mapping[str, Sequence[float]], targets: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """Mean bit accuracy and that of the worst twentieth, ready for JSON.

    Args:
        accuracy: of the single images, by what happened to their files.
        targets: for the mean, by the same names; None where there is none.
    """
    import numpy as np  # here, since the help of commands that use the kit needs no arrays

    return [
        {
            "what": what,
            "target": targets[what],
            "mean": float(np.mean(values)),
            "low5": float(np.quantile(values, 0.05)),
        }
        for what, values in accuracy.items()
    ]


def accuracy_table(rows: Sequence[Mapping[str, Any]], target: str = "target") -> str:
    """These rows as Markdown; ``target`` is the title of the last column."""
    lines = [
        [
            row["what"],
            f"{row['mean']:.4f}",
            f"{row['low5']:.3f}",
            "" if row["target"] is None else f"{row['target']:g}",
        ]
        for row in rows
    ]
    head = ["what happened to the file", "bit accuracy, mean", "worst 5%", target]
    return markdown_table(head, lines, right={1, 2, 3})
