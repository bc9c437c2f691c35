"""What is handed to a device lies where the device can fetch it while the host goes on."""

import torch

from scalefp.training.transfer import staged


def test_values_for_a_gpu_are_pinned_and_others_are_left_alone(monkeypatch):
    pinned = torch.ones(3)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned)
    values = torch.zeros(3)
    assert staged(values, torch.device("cuda")) is pinned
    assert staged(values, torch.device("cpu")) is values
