"""What a training writes down: means over a line, resumed logs, pictures, TensorBoard."""

import json
from pathlib import Path

import pytest
import torch

from scalefp.data.images import read_image
from scalefp.errors import UserError
from scalefp.training.distributed import World
from scalefp.training.log import TrainingLog, check_finite

ALONE = World(0, 1, torch.device("cpu"))


def terms(**values):
    return {name: torch.tensor(value) for name, value in values.items()}


def lines_of(run_dir):
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def test_a_line_has_the_mean_of_each_term_over_the_steps_that_had_it(tmp_path):
    with TrainingLog(tmp_path, 0, tensorboard=False) as log:
        log.add(terms(bits=1.0, r1=7.0), 8)
        log.add(terms(bits=3.0), 8)
        assert log.means(ALONE) == {"bits": 2.0, "r1": 7.0}
        log.write({"images": 16, **log.means(ALONE)})
        assert log.means(ALONE) == {}
        log.add(terms(bits=5.0), 8)
        log.write({"images": 24, **log.means(ALONE)})
    assert lines_of(tmp_path) == [{"images": 16, "bits": 2.0, "r1": 7.0}, {"images": 24, "bits": 5}]
    assert log.figures == {"images": 24, "bits": 5}


def test_speed_counts_the_images_since_the_last_line(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("scalefp.training.log.time.monotonic", lambda: clock[0])
    log = TrainingLog(tmp_path, 0, tensorboard=False)
    log.add(terms(bits=1.0), 8)
    log.add(terms(bits=1.0), 8)
    clock[0] += 4
    assert log.images_per_second() == 4
    log.write({"images": 16})
    log.add(terms(bits=1.0), 8)
    clock[0] += 1
    assert log.images_per_second() == 8


def test_a_resumed_log_drops_what_lies_past_the_checkpoint(tmp_path):
    with TrainingLog(tmp_path, 0, tensorboard=False) as log:
        for images in (8, 16, 24):
            log.write({"images": images})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"images": 32, "bi')  # killed
    resumed = TrainingLog(tmp_path, 16, tensorboard=False)
    assert resumed.figures == {"images": 16}
    resumed.write({"images": 24, "bits": 1.0})
    assert lines_of(tmp_path) == [{"images": 8}, {"images": 16}, {"images": 24, "bits": 1.0}]


def test_a_process_whose_files_another_one_writes_only_adds_up(tmp_path):
    with TrainingLog(tmp_path, 0, tensorboard=True, writes=False) as log:
        log.add(terms(bits=1.0), 8)
        log.write({"images": 8, **log.means(ALONE)})
    assert log.figures == {"images": 8, "bits": 1.0}
    assert not list(tmp_path.iterdir())


def test_figures_and_pictures_go_to_tensorboard_too(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "grids").mkdir()
    pictures = torch.arange(9, dtype=torch.uint8).view(9, 1, 1, 1).expand(9, 3, 4, 4)
    with TrainingLog(tmp_path, 0, tensorboard=True) as log:
        log.write({"images": 8, "bits": 0.5})
        log.show("marks", pictures, 8)
    written = events.EventAccumulator(str(tmp_path)).Reload()
    assert [(s.step, s.value) for s in written.Scalars("bits")] == [(8, 0.5)]
    assert [s.step for s in written.Images("marks")] == [8]
    sheet = read_image(tmp_path / "grids" / "marks-000000008.png")
    assert sheet.width >= 8 * 4 and sheet.height >= 2 * 4  # 8 in a row, hence two rows


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_term_that_is_not_finite_is_named(value):
    check_finite({"bits": 1.0, "pixels": -2.0}, 8)
    with pytest.raises(UserError, match=r"'pixels' became (nan|inf) after 8 images"):
        check_finite({"bits": 1.0, "pixels": value, "r1": value}, 8)


def test_a_line_with_a_term_that_is_not_finite_is_refused_whenever_it_was():
    log = TrainingLog(Path("-"), 40, tensorboard=False, writes=False)
    for value in (1.0, float("nan"), 2.0):
        log.add(terms(bits=value), 8)
    with pytest.raises(UserError, match="'bits' became nan after 64 images"):
        log.means(ALONE)
