"""experiments/performance/gpu_step.py; what a CPU has of it."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import gpu_step
from experiment_scripts import call, refused
from scalefp.experiment import load_results

TINY = [
    "model=tiny", "model.resolution=16", "model.n_bits=16", "model.channel_base=64",
    "model.channel_max=8", "model.embedding_width=8", "model.latent_dim=4",
    "model.decoder_resolution=16", "model.decoder_base=64", "model.decoder_max=8",
    "model.decoder_localizer=true",
]  # fmt: skip


def test_steps_are_compared_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_step, "COMPARED", (0, 1))
    for name in ("SETTLING", "TIMED"):
        monkeypatch.setattr(gpu_step, name, 1)
    monkeypatch.setattr(gpu_step, "SETTINGS", (("fp32", 0.0), ("fp32", 10.0)))
    monkeypatch.setattr(gpu_step, "HALVED", (2, 4, 8))
    call(gpu_step, monkeypatch, "--device", "cpu", "--batch", 8, "--out", tmp_path, *TINY)
    found = load_results(tmp_path / "gpu-step.json")
    assert [row["step"] for row in found["agreement"]] == [0, 1]
    for row in found["agreement"]:  # nothing is captured here
        assert all(plain == captured for plain, captured in (row[n] for n in gpu_step.TERMS))
    assert [(row["precision"], row["weight_noise"]) for row in found["speed"]] == [
        ("fp32", 0), ("fp32", 10),
    ]  # fmt: skip
    assert all(row["milliseconds"] > 0 and row["gib"] is None for row in found["speed"])
    assert found["kernels"] is None and set(found["halving"]) == {
        "avg_pool2d", "one copy", "nearest",
    }  # fmt: skip
    assert "| fp32 | 10 |" in (tmp_path / "gpu-step.md").read_text(encoding="utf-8")


def test_the_other_form_of_halvings_backward_pass_is_the_same() -> None:
    x = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = F.avg_pool2d(x, 2)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad(y, x, gradient)
    assert torch.equal(gpu_step.spread(gradient), expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(gpu_step, monkeypatch, "--out", tmp_path)
    assert "no usable CUDA device" in capsys.readouterr().err
