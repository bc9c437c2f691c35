"""What a training step of an adopted generator asks for besides bits and pixels."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from scalefp.config import TrainConfig
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.pretrained.adopted import Adopted, adopt
from scalefp.pretrained.modulation import modulate
from scalefp.pretrained.state import AdoptedState
from scalefp.pretrained.step import step
from scalefp.pretrained.tampered import out_of, stepped
from scalefp.training.compose import compose_training
from scalefp.training.distributed import World
from tests.networks.test_perceptual import installed, random_backbone
from tests.pretrained import own_generator
from tests.pretrained.test_train import Autoencoder

OWN = "tests.pretrained.own_generator."
CPU = torch.device("cpu")


def composed(folder: Path, options: Sequence[str] = ()) -> TrainConfig:
    torch.manual_seed(3)
    torch.save(own_generator.Generator().state_dict(), folder / "mine.pt")
    return compose_training(
        [
            f"+generator._target_={OWN}Generator", f"+generator.weights={folder}/mine.pt",
            f"+inputs._target_={OWN}Latents", "modulation.range=[0,1]", "model.resolution=16",
            "model.n_bits=8", "model.decoder_base=192", "model.decoder_max=24",
            "modulation.keys_each=4", "modulation.layers=[out]", "modulation.deltas=[out]",
            "optimizer.batch=32", "schedule.ramp_images=64", *options,
        ]
    )  # fmt: skip


def steps(config: TrainConfig, count: int) -> tuple[Adopted, AdoptedState, list[dict[str, Tensor]]]:
    """So many steps of a training whose keys count as readable after the first."""
    config.check()
    adopted, terms = adopt(config), []
    state = AdoptedState.build(config, adopted, CPU)
    for number in range(count):
        terms.append(step(config, adopted, state, World(0, 1, CPU), torch.float32))
        state.progress.images = (number + 1) * config.optimizer.batch
        state.progress.readable_at = config.optimizer.batch
    return adopted, state, terms


def test_fidelity_by_gradients_and_lpips_is_asked_for_by_name(tmp_path: Path) -> None:
    config = composed(tmp_path, ["loss.gradients=4"])
    _, plain, (without,) = steps(composed(tmp_path), 1)
    _, state, (terms,) = steps(config, 1)
    assert terms.keys() - without.keys() == {"gradients"} and terms["gradients"] > 0
    changed = zip(plain.parent.keyed.parameters(), state.parent.keyed.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in changed)

    config.loss.lpips, asked = 1.0, []

    def metric(a: Tensor, b: Tensor) -> Tensor:
        asked.append((a.shape, b.requires_grad))
        return (a - b).abs().mean(dim=(1, 2, 3))

    adopted = dataclasses.replace(adopt(config), perceptual=metric)
    terms = step(config, adopted, state, World(0, 1, CPU), torch.float32)
    assert asked == [((32, 3, 16, 16), False)]
    assert terms["lpips"] > 0 and terms["lpips"].requires_grad


@pytest.mark.skipif(not installed(), reason="lpips and torchvision are not installed")
def test_pictures_too_small_for_lpips_are_said_before_training(tmp_path: Path) -> None:
    random_backbone(tmp_path / "backbone.pth", "squeezenet1_1")
    config = composed(tmp_path, ["loss.lpips=1", f"loss.lpips_backbone={tmp_path}/backbone.pth"])
    with pytest.raises(UserError, match="LPIPS cannot be computed of pictures of 16x16"):
        adopt(config)


def test_the_parameters_of_a_key_are_those_of_its_folded_network(tmp_path: Path) -> None:
    _, state, _ = steps(composed(tmp_path), 1)
    key, inputs = Key.random(8), own_generator.Latents().draw(3, torch.Generator().manual_seed(1))
    parent = state.parent
    tensors = parent.folded(parent.signs(torch.from_numpy(key.bits)[None]))
    copy = parent.fold(key)
    assert tensors.keys() == dict(copy.named_parameters()).keys()
    torch.testing.assert_close(out_of(parent, tensors, inputs), copy(inputs))
    tensors["out.weight"].square().sum().backward()
    assert parent.keyed[0].deltas.grad is not None and parent.keyed[0].deltas.grad.any()


def test_a_step_goes_where_the_loss_grows_by_so_many_deviations() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    other = torch.ones(2, requires_grad=True)  # has no part in the loss
    found = stepped({"w": weight, "o": other}, (weight * torch.tensor([3.0, 0, -3, 0])).sum(), 0.2)
    change = found["w"] - weight
    torch.testing.assert_close(change.square().mean().sqrt(), 0.2 * weight.std(correction=0))
    torch.testing.assert_close(change / change[0], torch.tensor([1.0, 0, -1, 0]))
    assert torch.equal(found["o"], other)


def test_instances_with_changed_weights_are_read_every_few_steps_once_all_bits_are(
    tmp_path: Path,
) -> None:
    options = ["loss.weight_noise=1", "loss.weight_step=1", "loss.weight_noise_interval=2"]
    _, state, terms = steps(composed(tmp_path, options), 3)
    names = {"weight_noise", "weight_step", "weight_noise_bits", "weight_step_bits"}
    assert [len(names & found.keys()) for found in terms] == [0, 0, 4]
    assert all(torch.isfinite(terms[-1][name]) for name in names)
    _, plain, _ = steps(composed(tmp_path), 3)
    for name in ("parent", "decoder"):
        first, second = (getattr(one, name).parameters() for one in (state, plain))
        assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True)), name


def test_the_worst_step_is_read_worse_than_noise_of_that_size(tmp_path: Path) -> None:
    options = ["loss.weight_noise=1", "loss.weight_step=1", "loss.weight_noise_interval=1"]
    config = composed(tmp_path, options)
    _, _, terms = steps(config, 12)
    noise, worst = (
        sum(float(one[n]) for one in terms[4:]) for n in ("weight_noise", "weight_step")
    )
    assert worst > noise


def test_a_network_called_by_another_method_is_changed_too(tmp_path: Path) -> None:
    network = Autoencoder().eval()
    parent = modulate(network, 8, ["out"], method="decode")
    inputs = own_generator.Latents().draw(2, torch.Generator().manual_seed(1))
    tensors = {name: 2 * tensor for name, tensor in network.named_parameters()}
    expected = functional_call(own_generator.Generator().eval(), {
        **dict(network.named_buffers()),
        **{n: t for n, t in tensors.items() if not n.startswith("encoder")},
    }, (inputs,))  # fmt: skip
    torch.testing.assert_close(out_of(parent, tensors, inputs), expected)
