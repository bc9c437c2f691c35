"""The notebook runs from top to bottom, and its verdicts are right."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS


def test_tour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads((DOCS / "tour.ipynb").read_text())["cells"]
    names: dict[str, Any] = {"__name__": "tour"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"tour.ipynb, cell {number}", "exec"), names)
    assert set(names["named"]["untouched"]) == {"alice"}
    assert all(set(holders) <= {"alice"} for holders in names["named"].values())
    assert names["together"].holder == "alice"
    assert names["scalefp"].attribute(names["unrelated"], names["registry"]) == []


def test_tour_shows_what_it_printed() -> None:
    cells = json.loads((DOCS / "tour.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        assert cell["execution_count"] == number
        assert bool(cell["outputs"]) == ("print(" in "".join(cell["source"]) or number == 3)
        assert not any(output["output_type"] == "error" for output in cell["outputs"])
    assert (DOCS / "tour.ipynb").stat().st_size < 100_000
