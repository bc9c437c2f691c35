"""experiments/artificial-fingerprints: adversaries who look for marks, in images and outputs."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")


import scene
import secrecy
import secrecy_report
from experiment_scripts import SIZE, call, pictures, refused, write_pictures
from outputs import Outputs
from scalefp.artificial.marker import Marker
from scalefp.detection import adversary

# Outputs of the owner's generators.


def test_outputs_are_halved_and_paired(tmp_path: Path) -> None:
    few = str(write_pictures(tmp_path, 20))
    outputs = Outputs(
        {"clean": few, "marked": few, "control": None}, [few, few], {"shadow": [few]}, SIZE
    )
    assert outputs.has("clean", "marked") and not outputs.has("clean", "control")
    learned, kept = outputs.labelled("marked"), outputs.kept_back("marked")
    assert torch.equal(torch.cat([learned.marked, kept]), outputs.sets["marked"])
    assert [len(outputs.own["shadow"]), len(outputs.own["shadow"][0].clean)] == [1, 20]


# Images.


def test_marks_may_be_weaker_than_the_package_makes_them(marker: Marker) -> None:
    images = pictures(8)
    bits = torch.zeros(marker.config.n_bits, dtype=torch.uint8)
    changed = [
        float((scene.write(marker, images, bits, psnr) != images).float().mean())
        for psnr in (50, 55, 60, 75)
    ]
    assert changed[0] > changed[1] > changed[2] > 0 and changed[3] == 0
    assert torch.equal(scene.write(marker, images, bits, 50), marker.mark(images, bits, psnr=50))


def test_secrecy_measures_all_threats_and_goes_on(
    marker_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    data = write_pictures(tmp_path / "data", 460)
    words = ["--marker", marker_file, "--shadow", marker_file, "--data", data, "--images", 460]
    words += ["--psnr", 30, 60, "--detectors", "carriers", "--key", "ab" * 16]
    words += ["--clean-samples", data, "--marked-samples", data, "--control-samples", data]
    words += ["--own-clean-samples", data, data, "--shadow-samples", data, data]
    words += ["--informed-samples", data]
    words += ["--parts", tmp_path / "parts", "--out", tmp_path / "out"]
    call(secrecy, monkeypatch, *words)
    results = json.loads((tmp_path / "out" / "results.json").read_text())["marker"]
    assert results["images"] == {"adversary": 184, "published": 138, "test": 128}
    cases = [(row["psnr"], row["threat"]) for row in results["rows"]]
    assert cases == [(psnr, threat) for psnr in (30.0, 60.0) for threat in scene.THREATS]
    cases = [(row["learned"], row["threat"]) for row in results["generated"]]
    assert cases == [
        *(("images", threat) for _ in range(2) for threat in scene.THREATS),
        *(("his own generators", threat) for threat in ("shadow", "informed")),
        *(("these generators", threat) for threat in (secrecy.LABELLED, secrecy.CLEAN_PAIR)),
    ]
    # The same pictures on both sides: nothing to tell apart.
    assert all(abs(row["accuracy"] - 0.5) < 0.1 for row in results["generated"])
    assert all(row["control"]["ranked"] == 0.5 for row in results["generated"][:-2])
    # What is perfect on images is seen to be worthless by who has generators of his own.
    tried, untried = results["generated"][1], results["generated"][2]
    assert tried["threat"] == "informed" and abs(tried["validation"] - 0.5) < 0.1
    assert untried["threat"] == "the key" and untried["validation"] > 0.9
    strong, weak = (r for r in results["rows"] if r["threat"] == "informed")
    assert strong["accuracy"] > 0.9 and strong["accuracy"] >= weak["accuracy"]
    strong, weak = (reading["psnr"] for reading in results["readings"])
    assert round(strong) == 30 and weak > 60  # rounding to 8 bits takes a part of what is weak
    assert str(tmp_path) not in results["command"]
    page = (tmp_path / "out" / "table.md").read_text()
    assert "| informed, 30 dB | <= 0.55 |" in page and "PSNR measured | owner, 1 image |" in page
    assert (tmp_path / "out" / "marker.png").is_file()

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(adversary, "train", refuse)
    call(secrecy, monkeypatch, *words)  # all parts are there


def test_the_adversary_takes_what_did_best_on_his_own_examples() -> None:
    case = {"threat": "shadow", "learned": "images"}
    rows = [
        {**case, "psnr": 38.0, "validation": 0.9, "accuracy": 0.5},
        {**case, "psnr": 38.0, "validation": 0.8, "accuracy": 0.7},
        {**case, "psnr": 40.0, "validation": 0.6, "accuracy": 0.6},
    ]
    assert secrecy_report.chosen(rows) == [rows[0], rows[2]]


def test_own_generators_need_somebody_to_judge(
    marker_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--marker", marker_file, "--shadow-samples", "a.zip"]
    for more, message in (
        ([], "--shadow-samples needs as many --own-clean-samples"),
        (["--own-clean-samples", "b.zip"], "need --clean-samples and --marked-samples"),
    ):
        refused(secrecy, monkeypatch, *words, *more)
        assert message in capsys.readouterr().err
