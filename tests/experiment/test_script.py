"""A script's run: measured once, kept, reported from what was kept."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scalefp.errors import UserError
from scalefp.experiment import Experiment


def measure(options: argparse.Namespace) -> dict[str, Any]:
    if options.marker == "wrong":
        raise UserError("there is no marker 'wrong'")
    return {"marker": options.marker, "seed": options.seed, "pair": (1, 2)}


def page(results: Any) -> str:
    return "".join(f"{name}: {figures['pair']}\n" for name, figures in results.items())


def run(experiment: Experiment, *words: object) -> Any:
    parser = experiment.parser("Does it work?\n\nMore of it.")
    parser.add_argument("--marker", required=True)
    return experiment.run(parser, [str(word) for word in words])


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setattr(sys, "argv", ["experiments/work/work.py"])
    return Experiment(tmp_path / "made" / "work", measure, page, named_by="marker")


def test_figures_stand_beside_those_of_earlier_runs(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    run(experiment, "--marker", "runs/a.safetensors", "--seed", 3)
    run(experiment, "--marker", "b")
    results = run(experiment, "--marker", "c", "--name", "a")
    assert [(name, found["marker"]) for name, found in results.items()] == [("a", "c"), ("b", "b")]
    assert results["b"]["command"] == "python experiments/work/work.py"
    assert {"date", "hardware", "cpu_seconds"} <= set(results["a"])
    assert json.loads((experiment.folder / "results.json").read_text()) == results
    # The page sees what the file holds: a list, where a tuple was measured.
    assert (experiment.folder / "table.md").read_text() == "a: [1, 2]\nb: [1, 2]\n"
    assert capsys.readouterr().out.endswith("a: [1, 2]\nb: [1, 2]\n")


def test_a_report_measures_nothing_and_needs_no_other_option(
    experiment: Experiment, tmp_path: Path
) -> None:
    tmp_path.joinpath("results.json").write_text('{"old": {"pair": 5}}')
    run(experiment, "--report", "--out", tmp_path)
    assert (tmp_path / "table.md").read_text() == "old: 5\n"
    assert (tmp_path / "results.json").read_text() == '{"old": {"pair": 5}}'


def test_figures_are_kept_when_the_report_fails(experiment: Experiment, tmp_path: Path) -> None:
    def broken(results: Any) -> str:
        raise KeyError("pair")

    with pytest.raises(KeyError):
        run(Experiment(tmp_path, measure, broken, named_by="marker"), "--marker", "a")
    assert json.loads((tmp_path / "results.json").read_text())["a"]["pair"] == [1, 2]


@pytest.mark.parametrize(
    ("content", "words", "sentence"),
    [
        (None, ["--marker", "wrong"], "there is no marker 'wrong'"),
        (None, ["--report"], "measure first"),
        ("{", ["--marker", "a"], "holds no results of a run"),
        ("[]", ["--report"], "holds no results of a run"),
    ],
)
def test_a_mistake_is_one_sentence(
    experiment: Experiment,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    words: list[str],
    sentence: str,
) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(SystemExit) as end:
        run(experiment, *words, "--out", tmp_path)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"] * (content is not None)


def test_a_folder_that_cannot_be_made(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        run(experiment, "--marker", "a", "--out", tmp_path / "file" / "inside")
    assert "choose another place" in capsys.readouterr().err


def test_help_shows_the_first_line_and_the_common_options(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(experiment, "--help")
    text = capsys.readouterr().out
    assert "Does it work?" in text and "More of it" not in text
    assert all(option in text for option in ("--out", "--report", "--name", "--seed", "--marker"))


def test_a_stopped_run_goes_on_from_its_parts_unless_the_code_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["experiments/work/work.py"])
    measured: list[str] = []
    stopped = [KeyboardInterrupt]

    def part(name: str) -> str:
        if name == "second" and stopped:
            raise stopped.pop()
        measured.append(name)
        return name

    def in_parts(options: argparse.Namespace) -> dict[str, Any]:
        parts = experiment.parts(options, {"seed": options.seed})
        return {"pair": [parts.get(name, partial(part, name)) for name in ("first", "second")]}

    experiment = Experiment(Path("experiments", "work"), in_parts, page, named_by="marker")

    def run_again() -> Any:
        parser = experiment.parser("Does it work?", in_parts=True)
        parser.add_argument("--marker", default="a")
        return experiment.run(parser, ["--out", "out"])

    with pytest.raises(KeyboardInterrupt):
        run_again()
    assert run_again()["a"]["pair"] == ["first", "second"]
    assert measured == ["first", "second"]
    assert len(list(Path("runs/parts/experiments/work/a").iterdir())) == 2
    monkeypatch.setattr("scalefp.experiment.script.code_version", lambda: "another")
    run_again()
    assert measured == ["first", "second", "first", "second"]
