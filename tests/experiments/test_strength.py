"""experiments/artificial-fingerprints/strength.py, on the bundled marker."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

import strength
from experiment_scripts import call


def test_stronger_marks_last_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is asserted below; how each point is measured is tested beside measure_point.
    quick = [target for target in strength.TARGETS if target.what in ("clean", "JPEG 50")]
    monkeypatch.setattr(strength, "TARGETS", quick)
    words = ["--marker", "artificial-emoji", "--keys", 2, "--psnr", 30, 42, "--out", tmp_path]
    call(strength, monkeypatch, *words)
    assert len(quick) == 2
    strong, weak = json.loads((tmp_path / "results.json").read_text())["artificial-emoji"]["rows"]
    assert strong["psnr"]["mean"] == pytest.approx(30, abs=0.3)
    assert weak["psnr"]["mean"] == pytest.approx(42, abs=0.3)
    for read in (strong["read"], weak["read"]):
        assert read["clean"]["mean"] > 0.98
    assert strong["read"]["JPEG 50"]["mean"] > weak["read"]["JPEG 50"]["mean"] + 0.2
    assert strong["ssim"]["mean"] < weak["ssim"]["mean"]
    assert "| 42." in (tmp_path / "table.md").read_text()
    assert (tmp_path / "artificial-emoji.png").exists()
