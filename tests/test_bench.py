"""experiments/performance: statistics, table, and one measurement in its own process."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from scalefp.config import ModelConfig
from scalefp.decoder import Decoder
from scalefp.generator import Generator
from scalefp.model import save_release

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments" / "performance"))
import bench
import measurements

ENVIRONMENT = {"hardware": "an abacus", "python": "3", "torch": "2", "load": 0.5}


def test_rows_hold_median_and_quartiles() -> None:
    row = measurements.row("x", "ms", [5.0, 1.0, 2.0, 3.0, 4.0])
    assert (row["median"], row["low"], row["high"], row["repeats"]) == (3, 1.5, 4.5, 5)
    assert measurements.row("once", "s", [7.0])["low"] == 7


def test_ratio_is_of_medians_with_the_spread_of_pairs() -> None:
    row = measurements.ratio_row("x", [10.0, 20.0, 90.0], [1.0, 4.0, 5.0])
    assert row["median"] == 20 / 4
    assert (row["low"], row["high"]) == (5, 18)


def test_tasks_take_turns_and_warm_up() -> None:
    calls: list[str] = []
    seconds = measurements.interleaved([lambda: calls.append("a"), lambda: calls.append("b")], 3)
    assert calls == ["a", "b"] * 5
    assert [len(one) for one in seconds] == [3, 3]
    assert all(value >= 0 for one in seconds for value in one)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (3.0, "3.00"), (48.25, "48.2"), (999.0, "999"), (12_345.6, "12,300")],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert bench.figure(value) == text


def test_every_measurement_has_a_title() -> None:
    assert list(bench.TITLES) == list(measurements.MEASUREMENTS)


def fake(name: str, model: str, threads: int) -> dict[str, Any]:
    rows = [measurements.row(f"speed of {name}", "img/s", [float(threads)] * 3)]
    return {"rows": rows, "peak_mib": 1234.5, "environment": ENVIRONMENT}


def test_table_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "measure", fake)
    arguments = ["--model", "/secret/place/r.safetensors", "--threads", "2", "--out", str(tmp_path)]
    assert bench.main([*arguments, "--only", "decode", "sample"]) == 0
    printed = capsys.readouterr().out
    assert "| speed of decode | 2.00 | img/s | 2.00 to 2.00 | 3 |" in printed
    assert "| decode | 1,234 |" in printed and "an abacus" in printed
    assert (tmp_path / "table.md").read_text() == printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["measurements"]) == ["decode", "sample"] and results["threads"] == 2
    assert "secret" not in (tmp_path / "results.json").read_text() + printed
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_measurement_ends_the_bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> dict[str, Any]:
        raise bench.MeasurementError(2)

    monkeypatch.setattr(bench, "measure", failing)
    assert bench.main(["--only", "decode"]) == 2
    assert capsys.readouterr().out == ""


def test_a_measurement_in_its_own_process(tmp_path: Path) -> None:
    config = ModelConfig(
        resolution=16, n_bits=32, latent_dim=8, channel_base=64, channel_max=8,
        embedding_width=8, decoder_resolution=16, decoder_base=64, decoder_max=8,
    )  # fmt: skip
    torch.manual_seed(0)
    release = tmp_path / "toy.safetensors"
    save_release(release, config, Generator(config), Decoder(config), training={})
    answer = bench.measure("decode", str(release), threads=1)
    assert [row["unit"] for row in answer["rows"]] == ["img/s", "img/s", "ms"]
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in answer["rows"])
    assert 50 < answer["peak_mib"] < 4000  # torch alone takes more than 50
