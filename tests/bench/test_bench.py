"""scalefp bench: timing, the table, the reference networks and where a step's time goes."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import equal_losses
from conftest import Run, assert_mistake
from scalefp.bench import gpu, parts, report, rows, textbook, timing, training
from scalefp.config import ModelConfig, OptimizerConfig, TrainConfig
from scalefp.networks.generator import block_resolutions, channels_at
from scalefp.networks.layers import modulated_conv2d_reference

ENVIRONMENT = {
    "hardware": "an abacus (2 cores), 1 threads used", "python": "3", "torch": "2", "load": 0.5,
}  # fmt: skip
SMALL = ModelConfig(
    resolution=16, n_bits=8, latent_dim=4, channel_base=64, channel_max=8, embedding_width=8,
    decoder_resolution=16, decoder_base=64, decoder_max=8,
)  # fmt: skip


# Rows.


def test_rows_hold_median_and_quartiles() -> None:
    row = rows.row("x", "ms", [5.0, 1.0, 2.0, 3.0, 4.0])
    assert row.own == rows.Spread("x", median=3, low=1.5, high=4.5, repeats=5)
    assert rows.row("once", "s", [7.0]).own.low == 7
    assert row.ratio is None


def test_the_ratio_is_that_of_the_medians() -> None:
    row = rows.row("x", "ms", [10.0, 20.0, 90.0], beside=("y", [1.0, 4.0, 5.0]))
    assert row.ratio == 20 / 4
    assert row.beside is not None and (row.beside.what, row.beside.low) == ("y", 1)


def test_rows_come_back_from_json() -> None:
    alone = rows.row("x", "ms", [1.0, 2.0])
    beside = rows.row("x", "ms", [1.0], beside=("y", [4.0]), target="<= 1")
    assert alone.to_json() == {
        "what": "x", "median": 1.5, "low": 0.75, "high": 2.25, "repeats": 2, "unit": "ms",
        "target": "",
    }  # fmt: skip
    assert beside.to_json()["ratio"] == 0.25
    for row in (alone, beside):
        assert rows.Row.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_tasks_take_turns_and_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    now = 100.0

    def task(name: str, seconds: float) -> None:
        nonlocal now
        calls.append(name)
        now += seconds * (1 + calls.count(name))  # slower by every round

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    seconds = timing.interleaved([lambda: task("a", 0.5), lambda: task("b", 2.0)], 3)
    assert calls == ["a", "b"] * 5
    assert seconds == [[2.0, 2.5, 3.0], [8.0, 10.0, 12.0]]  # of rounds 3 to 5


def test_units() -> None:
    assert timing.rates([0.5, 2.0], 8) == [16, 4]
    assert timing.milliseconds([0.5, 2.0], 10) == [50, 200]


# The table.


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (3.0, "3.00"), (48.25, "48.2"), (999.0, "999"), (12_345.6, "12,300")],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert rows.figure(value) == text


@pytest.mark.parametrize(
    ("ratio", "target", "text"),
    [
        (4.0, ">= 4", ">= 4"),
        (3.9, ">= 4", ">= 4, missed"),
        (2.0, "<= 2", "<= 2"),
        (2.1, "<= 2", "<= 2, missed"),
        (1.0, "", ""),
    ],
)
def test_a_missed_target_is_said_to_be_missed(ratio: float, target: str, text: str) -> None:
    row = rows.row("x", "ms", [ratio], beside=("y", [1.0]), target=target)
    assert row.verdict == text


def fake_work(kind: str, name: str, model: str, threads: int, folder: Path) -> dict[str, Any]:
    made = rows.row(
        f"speed of {name}", "img/s", [float(threads)] * 3, beside=("peer", [4.0]), target=">= 1"
    )
    return {
        "rows": [made.to_json()],
        "peak_mib": 1234.5,
        "environment": ENVIRONMENT,
        "release": "ab",
    }


def test_the_command_prints_the_table_and_writes_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "work", fake_work)
    arguments = ["--model", "/secret/place/r.safetensors", "--threads", "2", "8"]
    result = run("bench", *arguments, "--out", tmp_path, "--only", "decode", "sample")
    assert result.code == 0
    assert (
        "| speed of decode | img/s | 2.00 | 2.00 to 2.00 | peer | 4.00 | 0.500 | >= 1, missed |"
        in result.out
    )
    assert "| speed of decode | img/s | 8.00 |" in result.out
    assert "| decode 32 images | 1,234 |" in result.out
    assert "an abacus (2 cores), Python 3" in result.out
    assert (tmp_path / "table.md").read_text() == result.out
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["speed"]) == ["2", "8"]
    assert list(results["speed"]["2"]) == list(results["memory"]) == ["sample", "decode"]
    assert "secret" not in (tmp_path / "results.json").read_text() + result.out
    printed = run("bench", *arguments, "--only", "decode", "sample", "--json")
    assert printed.json == results and results["release"] == "ab"


def test_further_measurements_stand_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "work", fake_work)
    monkeypatch.setattr(report, "training_rate", lambda processes, folder: 10.0 * processes)
    extra = {"search": lambda: {"markdown": "| keys |\n", "keys": 3}}
    results = report.bench("r", [1], extra=extra)
    assert results["extra"]["search"]["keys"] == 3
    assert results["scaling"][1]["ratio"] == 2
    text = report.markdown(results)
    assert text.endswith("\n\n| keys |\n") and "2 processes | img/s | 20.0 |" in text
    assert set(results["memory"]) == set(report.MEMORY)


def test_scaling_alone_tells_what_it_was_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "work", fake_work)
    monkeypatch.setattr(report, "training_rate", lambda processes, folder: 30.0)
    results = report.bench("r", [1, 2], ["scaling"])
    assert results["speed"] == results["memory"] == {}
    assert "an abacus" in report.markdown(results)


def test_mistakes_are_told_apart(run: Run, tmp_path: Path) -> None:
    assert_mistake(run("bench", "--out", tmp_path / "none"), "not a folder")
    assert_mistake(run("bench", "--only", "everything"), "everything")
    assert_mistake(run("bench", "--threads", "0"), "0")


def test_the_measuring_process_loads_no_torch_whose_memory_its_children_would_inherit() -> None:
    script = (
        "import sys\n"
        "from scalefp.bench import report\n"
        "from scalefp.cli import main\n"
        "where = dict(hardware='abacus', python='3', torch='2', load=0.5)\n"
        "report.work = lambda *_: {'peak_mib': 1.0, 'environment': where, 'release': 'ab'}\n"
        "assert main(['bench', '--only', 'nothing']) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["speed", "memory", "profile"])
def test_a_measurement_in_its_own_process(release: Path, tmp_path: Path, kind: str) -> None:
    answer = report.work(kind, "instantiate", str(release), 1, tmp_path)
    assert 50 < answer["peak_mib"] < 8000  # torch alone takes more than 50
    if kind == "speed":
        assert answer["rows"][0]["beside"]["what"].startswith("copy of its weights")
        assert all(0 < row["low"] <= row["median"] <= row["high"] for row in answer["rows"])
    if kind == "profile":
        assert "aten::_foreach_mul" in (tmp_path / "instantiate.txt").read_text()
        assert json.loads((tmp_path / "instantiate.json").read_text())["traceEvents"]


def test_the_worker_knows_every_name() -> None:
    script = (
        "from scalefp.bench import report, worker\n"
        "assert {*report.SPEED, *report.GPU} == set(worker.SPEED)\n"
        "assert set(report.MEMORY) | set(report.PROFILED) == set(worker.ALONE)\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


# The reference.


@pytest.mark.parametrize("demodulate", [True, False])
def test_the_grouped_convolution_is_the_modulated_one(demodulate: bool) -> None:
    torch.manual_seed(0)
    layer = textbook.ModulatedConv(3, 5, 3, 8)
    x, embedding = torch.randn(4, 3, 6, 6), torch.randn(4, 8)
    expected = modulated_conv2d_reference(
        x, layer.weight * layer.gain, 1 + layer.affine(embedding), demodulate=demodulate
    )
    torch.testing.assert_close(layer(x, embedding, demodulate=demodulate), expected)


def test_its_resampling_keeps_constants_and_places() -> None:
    ones = torch.ones(1, 2, 6, 6)
    down = F.conv2d(F.pad(ones, (1, 1, 1, 1)), textbook.low_pass(2), groups=2)
    torch.testing.assert_close(down[:, :, 1:-1, 1:-1], torch.ones(1, 2, 3, 3))
    up = F.conv_transpose2d(ones, textbook.low_pass(2) * 4, stride=2, padding=1, groups=2)
    assert up.shape == (1, 2, 12, 12)
    torch.testing.assert_close(up[:, :, 1:-1, 1:-1], torch.ones(1, 2, 10, 10))


def test_its_networks_have_the_shapes_of_ours() -> None:
    z, bits = torch.randn(4, 4), torch.randint(0, 2, (4, 8))
    images = textbook.Generator(SMALL)(z, bits)
    assert images.shape == (4, 3, 16, 16)
    assert textbook.Discriminator(SMALL)(images).shape == (4, 1)
    assert textbook.Discriminator(SMALL, 12)(images).shape == (4, 12)


def test_its_size_is_that_of_the_reference_asked_for() -> None:
    config = training.configuration(64).model
    widths = [channels_at(config, size) for size in block_resolutions(config)]
    assert widths == [128, 128, 128, 64, 32]
    millions = sum(p.numel() for p in textbook.Discriminator(config).parameters()) / 1e6
    assert 1.15 < millions < 1.25


def test_both_steps_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.BATCH, 16, 8)
    config, data = training.configuration(16), training.noise_pictures(16)
    config.model = SMALL
    assert data.batch([0, 1]).shape == (2, 3, 16, 16)
    for one in (training.Ours(config, data, torch.float32), training.Textbook(config, data)):
        before = {name: [p.clone() for p in n.parameters()] for name, n in one.networks.items()}
        one.step()
        for name, network in one.networks.items():
            pairs = zip(before[name], network.parameters(), strict=True)
            assert any(not torch.equal(old, new) for old, new in pairs), name


# Where the time goes.


def busy(x: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        x = torch.tanh(x)
    return x


class Busy(nn.Module):
    """Two hundred times as busy backward and forward as another, by its argument."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(200, 200))
        self.times = times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return busy(x * self.weight, self.times)


def test_time_is_given_to_the_network_that_took_it_backward_too() -> None:
    long, short = Busy(200), Busy(2)
    optimizer = torch.optim.SGD([*long.parameters(), *short.parameters()], lr=0.1)

    def task() -> None:
        optimizer.zero_grad()
        short(long(torch.ones(200, 200))).sum().backward()
        optimizer.step()

    task()
    found = parts.shares(task, {"long": long, "short": short})
    assert math.isclose(sum(found.values()), 1)
    assert set(found) == {"long", "short", "optimizer", parts.REST}
    assert found["long"] > 0.7
    assert 0 < found["short"] < 0.2 and found["optimizer"] > 0

    with torch.no_grad():
        forward_alone = parts.shares(lambda: short(long(torch.ones(200, 200))), {"long": long})
    assert forward_alone["long"] > 0.7


# Equal losses.


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("demodulate", [True, False])
def test_the_other_training_computes_the_same(demodulate: bool, maps: bool) -> None:
    torch.manual_seed(0)
    x, weight, scales = torch.randn(3, 4, 6, 6), torch.randn(5, 4, 3, 3), 1 + torch.randn(3, 4)
    pattern = torch.randn(1, 4, 6, 6) if maps else None
    torch.testing.assert_close(
        equal_losses.grouped_modulation(x, weight, scales, pattern, demodulate=demodulate),
        modulated_conv2d_reference(x, weight, scales, pattern, demodulate=demodulate),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_agreement_counts_in_standard_errors() -> None:
    def runs(*levels: float) -> list[Any]:
        return [
            {name: [(10, 0.0), (20, level)] for name in equal_losses.TITLES} for level in levels
        ]

    found = equal_losses.agreement({"ours": runs(1, 2, 3), "textbook": runs(2, 3, 4)})
    one = found["bit_accuracy"]
    assert (one["ours"], one["textbook"]) == (2, 3)
    assert one["difference_in_standard_errors"] == pytest.approx(-1 / math.sqrt(2 / 3))


# On a GPU; here everything but the GPU is at work.


def test_steps_on_a_gpu_are_measured_beside_the_textbooks(monkeypatch: pytest.MonkeyPatch) -> None:
    def configuration(resolution: int, batch: int | None) -> TrainConfig:
        config = TrainConfig(model=SMALL, optimizer=OptimizerConfig(batch=4))
        config.perturb = {"jpeg": 0.5}
        config.run.precision = "fp32"
        return config

    monkeypatch.setattr(gpu, "configuration", configuration)
    monkeypatch.setattr(gpu, "TEXTBOOK", 16)
    made = gpu.measure_step(16, torch.device("cpu"), repeats=1)
    assert [row.own.what.partition(",")[0] for row in made] == [
        *["training step"] * 4, "kernels in a step", "time in which the GPU computes", "memory",
    ]  # fmt: skip
    beside = [row.beside.what for row in made if row.beside is not None]
    assert beside == ["textbook, fp32", "textbook, TF32", "textbook, bf16, compiled"]
    assert all(row.own.median > 0 for row in made[:4])


def test_the_step_that_is_measured_is_the_releases_with_all_perturbations() -> None:
    config = gpu.configuration(128)
    config.check()
    assert (config.model.resolution, config.optimizer.batch) == (128, gpu.BATCH[128])
    assert len(config.perturb) > 15 and config.model.channel_base // 128 == 64


def test_instances_and_reading_are_measured_on_a_device() -> None:
    made = gpu.measure_use("emoji", torch.device("cpu"), repeats=1, used=2)
    assert all(row.own.median > 0 and row.unit == "img/s" for row in made)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so(run: Run) -> None:
    asked = run("bench", "--device", "cuda", "--only", "gpu32")
    assert asked.code == 2 and "gpu32 failed" in asked.err and "Traceback" not in asked.err
    assert_mistake(run("bench", "--device", "cuda", "--only", "decode"), "none of --device cuda")
