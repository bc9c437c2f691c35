"""A key's network has the original's class and state dict, and computes what the parent does."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scalefp
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.pretrained.modulation import candidates

KEY = Key.from_hex("5ac3" * 4)  # 64 bits
BITS = torch.from_numpy(KEY.bits)[None].expand(3, -1)


def filled(network: nn.Module) -> nn.Module:
    """With running statistics and affine norms that are not those of a new network."""
    draw = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features, generator=draw)
            module.running_var = torch.rand(module.num_features, generator=draw) + 0.5
    return network.eval()


class Residual(nn.Module):
    """Convolutions with group norm and a skip, and attention over the places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 1, bias=False)
        self.norm = nn.GroupNorm(2, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, *, gain: float = 1.0) -> dict[str, Tensor]:
        x = x + self.conv1(torch.relu_(self.norm(x)))
        tokens = x.flatten(2).transpose(1, 2)
        x = x + self.attention(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, x.shape[2:])
        return {"sample": self.conv2(x) * gain}


NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "dcgan": (
        nn.Sequential(
            nn.ConvTranspose2d(5, 8, 4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
            nn.ConvTranspose2d(8, 3, 4, 2, 1),
            nn.Tanh(),
        ),
        (5, 1, 1),
    ),
    "grouped": (
        nn.Sequential(
            nn.Conv2d(6, 9, 3, groups=3, dilation=2, padding=2, padding_mode="reflect"),
            nn.SiLU(),
            nn.ConvTranspose2d(9, 6, 3, 2, groups=3, output_padding=1),
        ),
        (6, 8, 8),
    ),
    "linear": (
        nn.Sequential(nn.Linear(7, 24), nn.BatchNorm1d(24), nn.GELU(), nn.Linear(24, 3)),
        (7,),
    ),
    "tokens": (nn.Sequential(nn.Linear(7, 9), nn.LayerNorm(9), nn.Linear(9, 2)), (4, 7)),
    "volume": (nn.Sequential(nn.Conv3d(2, 4, 3), nn.ConvTranspose3d(4, 1, 2)), (2, 4, 4, 4)),
    "residual": (Residual(), (8, 4, 4)),
}


def out(value: Any) -> Tensor:
    result: Tensor = value["sample"] if isinstance(value, dict) else value
    return result


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    network, shape = NETWORKS[request.param]
    return filled(network), torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("deltas", [False, True])
def test_a_folded_network_is_the_original_but_for_its_values(
    case: tuple[nn.Module, Tensor], deltas: bool
) -> None:
    network, x = case
    before = {name: value.clone() for name, value in network.state_dict().items()}
    names = list(candidates(network))[:1] if deltas else []
    torch.manual_seed(2)
    parent = scalefp.modulate(network, 64, deltas=names, key_gain=0.3)
    folded = parent.fold(KEY)
    with torch.no_grad():
        original, under, own = out(network(x)), out(parent(x, BITS)), out(folded(x))
    assert (under - own).abs().max() < 1e-5 * max(1, float(own.abs().max()))
    assert (under - original).abs().max() > 1e-2  # the key does something
    assert type(folded) is type(network)
    after = folded.state_dict()
    assert {n: (v.shape, v.dtype) for n, v in after.items()} == {
        n: (v.shape, v.dtype) for n, v in before.items()
    }
    assert list(after) == list(before)
    # Neither what was given nor the parent's copy of it has changed; no hook is left anywhere.
    for kept in (network, parent.network):
        assert all(torch.equal(value, before[name]) for name, value in kept.state_dict().items())
        for module in [*kept.modules(), *folded.modules()]:
            assert not module._forward_hooks and not module._forward_pre_hooks


def test_whatever_is_done_to_a_copy_leaves_parent_and_other_copies_alone(
    case: tuple[nn.Module, Tensor],
) -> None:
    network, x = case
    network = copy.deepcopy(network)
    network.notes, network.seen = {"made": [1]}, set()  # type: ignore[assignment]
    parent = scalefp.modulate(network, 64)
    first, second = parent.fold(KEY), parent.fold(KEY)
    with torch.no_grad():
        before = [out(parent(x, BITS)), out(second(x))]
    ran: list[type] = []
    # Trained, its norms, too, hooked, and changed in whatever else it holds.
    optimizer = torch.optim.SGD(first.requires_grad_(True).parameters(), lr=1)
    out(first.train()(x)).square().sum().backward()
    optimizer.step()
    first.notes["made"].append(2)
    first.seen.add(3)
    first.extra = nn.Identity()
    for module in list(first.modules()):
        module.register_buffer("more", torch.ones(1))
        module.register_forward_hook(lambda module, inputs, made: ran.append(type(module)))
    with torch.no_grad():
        assert not torch.equal(out(first.eval()(x)), before[1])
        assert type(first) in ran
        ran.clear()
        assert torch.equal(out(parent(x, BITS)), before[0])
        assert torch.equal(out(second(x)), before[1])
        assert not ran
    for other in (parent.network, second, network):
        assert other.notes == {"made": [1]} and other.seen == set()
        assert list(other.state_dict()) == list(network.state_dict())
        assert not any(p.requires_grad for p in other.parameters()) or other is network
        for mine, theirs in zip(first.modules(), other.modules(), strict=False):
            held = [id(v) for v in vars(mine).values() if isinstance(v, dict | set | list)]
            assert not set(held) & {id(v) for v in vars(theirs).values()}


def test_no_key_is_the_original(case: tuple[nn.Module, Tensor]) -> None:
    network, x = case
    parent = scalefp.modulate(network, 64)
    with torch.no_grad():
        neutral = out(parent(x, BITS, n_active=0))
        torch.testing.assert_close(neutral, out(network(x)), atol=1e-6, rtol=1e-6)


def test_each_input_has_its_own_key(case: tuple[nn.Module, Tensor]) -> None:
    network, x = case
    keys = [Key.random(64) for _ in range(3)]
    parent = scalefp.modulate(network, 64, deltas=list(candidates(network)), key_gain=0.3)
    bits = torch.stack([torch.from_numpy(key.bits) for key in keys])
    with torch.no_grad():
        together = out(parent(x, bits))
        for i, key in enumerate(keys):
            alone = out(parent.fold(key)(x[i : i + 1]))
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)


def test_norms_of_weights_stay() -> None:
    layer = nn.Conv2d(6, 9, 3, groups=3)
    folded = scalefp.modulate(layer, 64, key_gain=0.5).fold(KEY)
    assert not torch.allclose(folded.weight, layer.weight, rtol=0.1)  # type: ignore[arg-type]
    torch.testing.assert_close(
        folded.weight.square().sum((1, 2, 3)),  # type: ignore[operator,union-attr]
        layer.weight.square().sum((1, 2, 3)),
    )


def test_half_precision_stays_half() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3)).half()
    folded = scalefp.modulate(network, 64).fold(KEY)
    assert {value.dtype for value in folded.state_dict().values()} == {torch.float16}
    assert not torch.equal(folded[0].weight, network[0].weight)  # type: ignore[index]


def test_attention_is_left_alone_unless_it_is_named() -> None:
    network = Residual()
    assert scalefp.modulate(network, 8).names == ["conv1", "conv2"]
    assert scalefp.modulate(network, 8, ["conv2"], deltas=["conv1"]).names == ["conv2", "conv1"]


def test_weights_that_layers_share_are_left_alone() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    network[1].weight = network[0].weight
    assert scalefp.modulate(network, 8).names == ["2"]


def test_only_the_keys_learn() -> None:
    network, x = NETWORKS["dcgan"][0], torch.randn(2, 5, 1, 1)
    parent = scalefp.modulate(network, 64)
    parent(x, BITS[:2]).square().sum().backward()
    learning = {name for name, value in parent.named_parameters() if value.grad is not None}
    assert learning and all(name.startswith("keyed.") for name in learning)
    assert not parent.train().network.training  # batch norm keeps its statistics


@pytest.mark.parametrize(
    ("network", "options", "words"),
    [
        (nn.Sequential(nn.ReLU()), {}, "has no layer to modulate"),
        (nn.Sequential(nn.Linear(2, 2)), {"layers": []}, "names no layer"),
        (Residual(), {"layers": ["conv3"]}, "nearest names are conv2, conv1"),
        (Residual(), {"deltas": ["norm"]}, "no layer 'norm' to modulate"),
        (Residual(), {"n_bits": 0}, "between 1 and 512"),
    ],
)
def test_what_cannot_be_modulated(network: nn.Module, options: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        scalefp.modulate(network, **options)


def test_bits_of_another_length_and_a_batch_that_is_regrouped() -> None:
    class Regroups(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(x.flatten(0, 1)[:, None]).view_as(x)
            return out

    parent, x = scalefp.modulate(Regroups(), 64), torch.zeros(3, 2, 4, 4)
    with pytest.raises(UserError, match=r"shape \[b, 64\]"):
        parent(x, BITS[:, :8])
    with pytest.raises(UserError, match="regroups its batch"):
        parent(x, BITS)
    with pytest.raises(UserError):
        parent.fold(Key.random(32))
