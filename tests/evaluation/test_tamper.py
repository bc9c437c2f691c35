"""Changes of weights against what each says it does."""

import numpy as np
import pytest
import torch

from scalefp.errors import UserError
from scalefp.evaluation.tamper import TAMPERINGS, deviation, tamper
from scalefp.key import Key
from scalefp.release.channels import turn_channels_
from scalefp.release.instance import Instance, instantiate
from scalefp.release.model import Model


@pytest.fixture(scope="module")
def copies(model: Model) -> list[Instance]:
    """Two instances whose biases and maps are not zero, as after training."""
    bits = np.random.default_rng(0).integers(0, 2, (2, 128))
    instances = [instantiate(model.generator, Key.from_bits(row)) for row in bits]
    draw = torch.Generator().manual_seed(0)
    return [
        Instance(
            instance.config,
            {
                name: tensor.detach() + 0.1 * torch.randn(tensor.shape, generator=draw)
                for name, tensor in instance.named_parameters()
            },
        )
        for instance in instances
    ]


def tensors(instance: Instance) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in instance.named_parameters()}


def change(
    copies: list[Instance], name: str, strength: float, seed: int = 0
) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return tensors(tamper(copies, name, strength, draw))


@pytest.mark.parametrize("name", TAMPERINGS)
def test_every_entry_gives_a_working_instance_and_leaves_the_copies(
    copies: list[Instance], name: str
) -> None:
    before = [{n: t.clone() for n, t in tensors(copy).items()} for copy in copies]
    entry = TAMPERINGS[name]
    for strength in entry.test_strengths:
        changed = tamper(copies, name, strength, torch.Generator().manual_seed(0))
        assert changed.config == copies[0].config
        images = changed.sample(2)
        assert images.shape == (2, 3, 16, 16) and images.isfinite().all()
        weights = tensors(changed)
        assert not any(t.requires_grad for t in changed.parameters())
        assert any(not torch.equal(weights[n], before[0][n]) for n in weights)
    for copy, own in zip(copies, before, strict=True):
        assert all(torch.equal(t, own[n]) for n, t in tensors(copy).items())


@pytest.mark.parametrize("name", [n for n, e in TAMPERINGS.items() if e.identity is not None])
def test_nothing_changes_at_the_identity(copies: list[Instance], name: str) -> None:
    identity = TAMPERINGS[name].identity
    assert identity is not None
    same = change(copies, name, identity)
    for n, tensor in tensors(copies[0]).items():
        torch.testing.assert_close(same[n], tensor, rtol=0, atol=1e-7)


def test_noise_is_relative_to_each_tensor(copies: list[Instance]) -> None:
    changed = change(copies, "noise", 0.25)
    again, other = change(copies, "noise", 0.25), change(copies, "noise", 0.25, seed=1)
    for name, tensor in tensors(copies[0]).items():
        if tensor.numel() >= 100:
            ratio = float((changed[name] - tensor).std() / tensor.std(correction=0))
            sigma = 0.25 / (2 * tensor.numel()) ** 0.5
            assert abs(ratio - 0.25) < 5 * sigma, name
        assert torch.equal(again[name], changed[name])
        assert not torch.equal(other[name], changed[name])


@pytest.mark.parametrize("bits", [8, 3])
def test_integers_have_so_many_levels(copies: list[Instance], bits: int) -> None:
    changed = change(copies, "integer", bits)
    for name, tensor in tensors(copies[0]).items():
        step = tensor.abs().max() / (2 ** (bits - 1) - 1)
        levels = changed[name] / step
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
        assert levels.abs().max() <= 2 ** (bits - 1) - 1 + 1e-3
        assert (changed[name] - tensor).abs().max() <= step / 2 * (1 + 1e-4)


def test_steps_are_multiples_of_the_standard_deviation(copies: list[Instance]) -> None:
    changed = change(copies, "step", 0.5)
    for name, tensor in tensors(copies[0]).items():
        width = 0.5 * deviation(tensor)
        assert (changed[name] - tensor).abs().max() <= width / 2 * (1 + 1e-4)
        assert len((changed[name] / width).round().unique()) <= 2 * 6 / 0.5


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_casts_are_torchs(copies: list[Instance], name: str, dtype: torch.dtype) -> None:
    changed = change(copies, name, 1)
    for n, tensor in tensors(copies[0]).items():
        assert changed[n].dtype == torch.float32
        assert torch.equal(changed[n], tensor.to(dtype).float())


def test_pruning_removes_the_smallest_weights_only(copies: list[Instance]) -> None:
    changed = change(copies, "prune", 0.3)
    for name, tensor in tensors(copies[0]).items():
        gone = changed[name] == 0
        assert torch.equal(changed[name][~gone], tensor[~gone])
        if name.endswith("weight"):
            assert int(gone.sum()) == round(0.3 * tensor.numel())
            assert tensor[gone].abs().max() <= tensor[~gone].abs().min()
        else:
            assert torch.equal(changed[name], tensor)


def test_flattening_leaves_the_mean_of_every_map(copies: list[Instance]) -> None:
    maps = {n: t for n, t in tensors(copies[0]).items() if n.endswith("offset")}
    assert maps
    half, flat = change(copies, "flatten", 0.5), change(copies, "flatten", 1.0)
    for name, tensor in tensors(copies[0]).items():
        if name in maps:
            mean = tensor.mean(dim=(2, 3), keepdim=True)
            torch.testing.assert_close(flat[name], mean.expand_as(tensor))
            torch.testing.assert_close(half[name], (tensor + mean) / 2)
        else:
            assert torch.equal(flat[name], tensor)


def test_averaging_two_copies(copies: list[Instance]) -> None:
    quarter, half = change(copies, "average", 0.25), change(copies, "average", 0.5)
    swapped = change(copies[::-1], "average", 0.5)
    other = tensors(copies[1])
    for name, tensor in tensors(copies[0]).items():
        torch.testing.assert_close(quarter[name], 0.75 * tensor + 0.25 * other[name])
        torch.testing.assert_close(half[name], swapped[name])


def test_averaging_finds_the_channels_that_belong_together(copies: list[Instance]) -> None:
    turned = tensors(copies[1])
    turn_channels_(turned, [3, 1])
    moved = [copies[0], Instance(copies[1].config, turned)]
    assert not torch.equal(turned["block1_conv_weight"], copies[1].block1_conv_weight)
    for share in (0.5, 1.0):
        aligned, plain = change(moved, "average", share), change(copies, "average", share)
        assert all(torch.equal(tensor, plain[name]) for name, tensor in aligned.items())


def test_deviation_of_a_single_value_is_zero() -> None:
    assert deviation(torch.tensor([3.0])) == 0
    assert deviation(torch.tensor([1.0, 3.0])) == 1


def test_a_tensor_without_spread_or_size_survives(copies: list[Instance]) -> None:
    flat = {n: torch.zeros_like(t) for n, t in tensors(copies[0]).items()}
    instance = Instance(copies[0].config, flat)
    for name in ("noise", "step", "integer", "prune"):
        changed = change([instance], name, TAMPERINGS[name].test_strengths[-1])
        assert all(torch.equal(t, flat[n]) for n, t in changed.items())


def test_mistakes(copies: list[Instance]) -> None:
    with pytest.raises(UserError, match="unknown tampering 'melt'.*noise"):
        change(copies, "melt", 1)
    with pytest.raises(UserError, match="average needs 2 generators, not 1"):
        change(copies[:1], "average", 0.5)
