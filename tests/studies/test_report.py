"""The page, table and data that a report is written as."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import Run
from scalefp.studies.report import make_report, page, table

ENVIRONMENT = {"seconds": 90.0, "hardware": "a machine"}


def write_job(folder: Path, figures: dict[str, float], **options: Any) -> None:
    """A finished job as Hydra and the training leave it."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"batch": 8, **options}))
    texts = [f"{name}={yaml.safe_dump(value).split()[0]}" for name, value in options.items()]
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(texts))
    results = {"figures": figures, "version": "1", "environment": ENVIRONMENT, "release": "ab"}
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """One seed each of 10 and of unlimited keys."""
    folder = tmp_path / "sweep"
    write_job(folder / "a", {"psnr": 20.5, "unseen_bit_accuracy": 0.5}, keys=10, seed=0)
    write_job(folder / "b", {"psnr": 8.25, "unseen_bit_accuracy": 1.0}, keys=None, seed=0)
    return folder


METRICS = ["psnr", "unseen_bit_accuracy"]


def test_null_is_shown_as_it_is_typed_and_a_column_has_as_many_decimals_everywhere(
    sweep: Path,
) -> None:
    report = make_report(sweep, METRICS)
    assert "| 10 | 1 of 1 | 20.50 | 0.5000 |" in page(report)
    assert "| null | 1 of 1 | 8.25 | 1.0000 |" in page(report)
    head, *lines = csv.reader(table(report).splitlines())
    assert [line[0] for line in lines] == ["10", "null"] and head[0] == "keys"
    assert lines[1] == ["null", "0", "8.25", "", "", "1", "1.0", "", "", "1"]


def test_counts_have_no_decimals(tmp_path: Path) -> None:
    for keys, bits in ((10, 64.0), (20, 80.0)):
        write_job(tmp_path / str(keys), {"n_active": bits, "unseen_bit_accuracy": 1}, keys=keys)
    text = page(make_report(tmp_path, ["n_active", "unseen_bit_accuracy"]))
    assert "| 20 | 1 of 1 | 80 | 1.0000 |" in text


def test_one_seed_has_no_interval_and_the_page_says_so(sweep: Path) -> None:
    alone = page(make_report(sweep, METRICS))
    assert "One seed for each setting, so there are no intervals" in alone
    write_job(sweep / "c", {"psnr": 21.5, "unseen_bit_accuracy": 0.7}, keys=10, seed=1)
    mixed = page(make_report(sweep, METRICS))
    assert "Student's t). A single seed has none." in mixed and "One seed for" not in mixed
    # 21 and 12.706 standard errors of 0.5
    assert "| 10 | 2 of 2 | 21.00 (14.65 to 27.35) |" in mixed
    write_job(sweep / "d", {"psnr": 9.25, "unseen_bit_accuracy": 1.0}, keys=None, seed=1)
    assert "A single seed" not in page(make_report(sweep, METRICS))


def test_the_page_says_what_figures_mean_how_long_jobs_took_and_on_what(sweep: Path) -> None:
    text = page(make_report(sweep, METRICS))
    assert "- `psnr`: between pictures of one latent under two keys, in dB" in text
    assert "keys that the training never saw, 8-bit files)" in text
    assert "2 jobs, 1.5 to 1.5 minutes each, on a machine." in text


def test_data_written_elsewhere_hold_every_job_and_what_all_have_in_common(
    run: Run, sweep: Path
) -> None:
    result = run("report", sweep, "--metric", "psnr", "--out", "kept/here")
    assert result.code == 0, result.err
    assert not (sweep / "report.md").exists()
    kept = Path("kept/here")
    report = json.loads((kept / "report.json").read_text())
    assert report["options"] == {"batch": 8, "seed": 0}
    assert report["finished"] == [
        {
            "job": name, "setting": {"keys": keys}, "seed": 0, "environment": ENVIRONMENT,
            "version": "1", "release": "ab", "pictures": None,
            "figures": {"psnr": psnr, "unseen_bit_accuracy": accuracy},
        }
        for name, keys, psnr, accuracy in (("a", 10, 20.5, 0.5), ("b", None, 8.25, 1.0))
    ]  # fmt: skip
    # The page and the table are made of the data alone.
    assert (kept / "report.md").read_text().startswith(page(report))
    assert (kept / "report.csv").read_text() == table(report)


def test_each_setting_shows_the_first_row_of_its_newest_pictures(run: Run, sweep: Path) -> None:
    def write_grid(job: str, images: int, value: int) -> None:
        (sweep / job / "grids").mkdir(exist_ok=True)
        grid = np.full((4 * 66 + 2, 8 * 66 + 2, 3), 255, np.uint8)
        for column in range(8):
            grid[2:66, 2 + 66 * column : 66 + 66 * column] = value + column
        Image.fromarray(grid).save(sweep / job / "grids" / f"latents-{images:09d}.png")

    write_grid("a", 100, 10)
    write_grid("a", 2000, 50)
    write_grid("b", 100, 90)
    assert run("report", sweep, "--out", "kept").code == 0
    report = json.loads(Path("kept/report.json").read_text())
    assert [job["pictures"] for job in report["finished"]] == [
        "grids/latents-000002000.png", "grids/latents-000000100.png",
    ]  # fmt: skip
    shown = np.asarray(Image.open("kept/pictures.png"))
    left, height = shown.shape[1] - (8 * 66 + 2), 68
    assert shown.shape[0] == 2 * height
    for row, value in enumerate((50, 90)):
        for column in range(8):
            picture = shown[row * height + 2 : (row + 1) * height, left + 2 + 66 * column :]
            assert (picture[:64, :64] == value + column).all()
    assert (shown[:, :left] < 128).any()  # the settings
    assert "(pictures.png)" in Path("kept/report.md").read_text()

    # A damaged file costs its row, not the report.
    (sweep / "a" / "grids" / "latents-000002000.png").write_bytes(b"no picture")
    assert run("report", sweep, "--out", "kept").code == 0
    assert Image.open("kept/pictures.png").height == height
