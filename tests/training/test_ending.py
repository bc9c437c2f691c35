"""What a training says at its end, and what its release says of itself."""

from pathlib import Path

import pytest

from conftest import Run
from scalefp.loading import load, load_model
from scalefp.networks.decoder import Decoder
from scalefp.networks.generator import Generator
from scalefp.release.model import Model, save_release
from scalefp.release.readable import NEEDED, UnreadableRelease, shortfall
from scalefp.training.ending import ending

RELEASE = Path("runs/a b/release.safetensors")
GOOD = {"bit_accuracy": 0.99, "evidence": 60.0, "psnr": 22.0, "n_active": 64}


def test_a_readable_training_says_what_it_reached_and_what_comes_next():
    first, *commands = ending(GOOD, 64, 9600, RELEASE).splitlines()
    assert "64 of 64 key bits" in first and "99.0%" in first and "60 bits of evidence" in first
    assert "22.0 dB" in first
    for command in ("registry issue", "instantiate", "evaluate"):
        assert any(f"scalefp {command}" in line for line in commands)
    assert all("'runs/a b/release.safetensors'" in line for line in commands)


def test_an_unfinished_training_says_how_to_go_on():
    text = ending(GOOD | {"n_active": 16, "evidence": 9.0}, 64, 9600, RELEASE)
    assert "only 16 of its 64 key bits" in text and "schedule.total_images=19200" in text
    assert "instantiate" not in text
    assert "model.n_bits=32" in text
    fewest = ending(GOOD | {"n_active": 8, "evidence": 1.0}, 8, 9600, RELEASE)
    assert "schedule.total_images=19200" in fewest and "n_bits" not in fewest


def test_a_marker_and_a_baseline_have_next_commands_of_their_own():
    marker = {name: value for name, value in GOOD.items() if name != "n_active"}
    assert "scalefp artificial embed" in ending(marker, 64, 9600, RELEASE)
    assert "without keys" in ending({"n_active": 0, "adversarial": 1.0}, 64, 9600, RELEASE)


@pytest.mark.parametrize(
    ("reached", "n_bits", "says"),
    [
        ({"active_bits": 64, "evidence": 60.0}, 64, None),
        ({"active_bits": 64, "evidence": NEEDED + 0.1}, 64, None),
        ({"active_bits": 64, "evidence": NEEDED - 0.6}, 64, "19 bits of evidence"),
        ({"active_bits": 48, "evidence": 60.0}, 64, "48 of its 64"),
        ({"active_bits": 0, "evidence": 1.0}, 64, "without keys"),
        ({"active_bits": 8, "evidence": 7.0}, 8, None),  # as much as eight bits can carry
        ({"active_bits": 8, "evidence": 2.0}, 8, "2 bits of evidence"),
        (None, 64, None),  # written by an earlier version
        ({"active_bits": "all"}, 64, None),
    ],
)
def test_what_was_reached_decides_whether_a_release_can_be_read(reached, n_bits, says):
    found = shortfall(reached, n_bits)
    assert found is None if says is None else says in found


def test_a_release_that_cannot_be_read_says_so_when_it_is_loaded(model: Model, tmp_path, recwarn):
    def write(active: int) -> Path:
        reached = {"active_bits": active, "bit_accuracy": 0.6, "evidence": 100.0}
        path = tmp_path / f"{active}.safetensors"
        networks = Generator(model.config), Decoder(model.config)
        save_release(path, model.config, *networks, training={"images": 8, "reached": reached})
        return path

    for open_release in (load, load_model):
        with pytest.warns(UnreadableRelease, match=r"64\.safetensors.*only 64 of its 128"):
            release = open_release(write(64))
        assert "attributed to nobody" in release.unreadable
    recwarn.clear()
    assert load(write(128)).unreadable is None
    assert load("emoji").unreadable is None  # which says nothing of it
    assert not recwarn.list


def test_commands_warn_in_one_line(run: Run, model: Model):
    path = Path("unfinished.safetensors")
    reached = {"active_bits": 64, "bit_accuracy": 0.6, "evidence": 100.0}
    networks = Generator(model.config), Decoder(model.config)
    save_release(path, model.config, *networks, training={"images": 8, "reached": reached})
    issued = run("registry", "issue", "recipient-a", "--registry", "keys.db", "--model", path)
    assert issued.code == 0
    (line,) = [line for line in issued.err.splitlines() if "warning" in line]
    assert line.startswith("scalefp: warning: ") and "only 64 of its 128 key bits" in line
