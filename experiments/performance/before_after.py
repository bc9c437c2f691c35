"""What the work on speed changed: before.json beside results.json, as before-after.md.

    python experiments/performance/before_after.py

before.json is what `make bench` measured of version 0.1.0 as first written, on the same kind of
machine; results.json is what it measures now. Both with one thread.
"""

import json
from pathlib import Path
from typing import Any

from scalefp.bench.rows import Row, figure
from scalefp.experiment import markdown_table, write_page

HERE = Path(__file__).parent
# (part, row, whether it is what stands beside) now -> row before.
ROWS = {
    ("instantiate", "instantiate", False): "instantiate",
    ("instantiate", "instantiate", True): "plain copy of its weights (3.2 MB)",
    ("sample", "instance, batch 32", False): "instance, batch 32",
    ("sample", "instance, batch 32", True): "parent, batch 32",
    ("sample", "instance, batch 1", False): "instance, batch 1",
    ("sample", "instance, batch 1", True): "parent, batch 1",
    ("sample", "instance by ONNX Runtime, batch 32", False): "instance by ONNX Runtime, batch 32",
    ("sample", "instance by ONNX Runtime, batch 1", False): "instance by ONNX Runtime, batch 1",
    ("decode", "decode, batch 32, from memory", False): "decode, batch 32, from memory",
    ("decode", "decode, batch 32, from PNG files", False): "decode, batch 32, from PNG files",
    ("decode", "decode one PNG file, to its key", False): "decode one PNG file, to its key",
}


def table(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The rows as Markdown; one that was not measured now is left out."""
    old = {row["what"]: row for part in before["measurements"].values() for row in part["rows"]}
    rows = []
    for (part, what, is_beside), name in ROWS.items():
        measured = map(Row.from_json, now["speed"]["1"].get(part, []))
        row = next((row for row in measured if row.own.what == what), None)
        if row is None or (shown := row.beside if is_beside else row.own) is None:
            continue
        was, value = old[name]["median"], shown.median
        faster = was / value if row.unit in ("ms", "s") else value / was
        rows.append([name, row.unit, *map(figure, (was, value, faster))])
    return markdown_table(["what", "unit", "before", "now", "times faster"], rows, right={2, 3, 4})


def main() -> None:
    before, now = (
        json.loads((HERE / name).read_text(encoding="utf-8"))
        for name in ("before.json", "results.json")
    )
    text = (
        f"Before: {before['date']}, {before['environment']['hardware']}, load "
        f"{before['environment']['load']:.1f}. Now: {now['date']}, "
        f"{now['environment']['hardware']}, load {now['environment']['load']:.1f}.\n\n"
        f"{table(before, now)}\n"
    )
    write_page(HERE / "before-after.md", text)
    print(text, end="")


if __name__ == "__main__":
    main()
