"""A step in parts, with activations computed again, or compiled: the same step."""

import contextlib
import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from scalefp.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)  # fmt: skip
from scalefp.data.dataset import ImageSet
from scalefp.data.images import save_png, to_pil
from scalefp.errors import UserError
from scalefp.networks.discriminator import Discriminator
from scalefp.perturb import PERTURBATIONS
from scalefp.training import loop
from scalefp.training.distributed import World
from scalefp.training.generator import train
from scalefp.training.losses import r1_penalty
from scalefp.training.perturbed import Chance
from scalefp.training.state import TrainingState
from scalefp.training.step import Due, Step

BATCH = 64
NETWORKS = ("generator", "decoder", "discriminator", "average_generator", "average_decoder")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (80, 3, 16, 16), generator=draw, dtype=torch.uint8)
    for number, picture in enumerate(to_pil(pixels)):
        save_png(folder / f"{number:02d}.png", picture)
    return ImageSet(folder, 16, progress=False)


def options(**run):
    """Everything that a step can contain is in each of these steps."""
    return TrainConfig(
        model=ModelConfig(
            resolution=16, n_bits=8, latent_dim=4, channel_base=64, channel_max=8,
            embedding_width=8, decoder_resolution=16, decoder_base=64, decoder_max=8,
            decoder_localizer=True,
        ),
        data=DataConfig(source="-", flip=True),
        loss=LossConfig(
            path_length=1.0, path_length_interval=1, r1_interval=2, augment=0.5, visibility=0.5
        ),
        schedule=ScheduleConfig(
            decay_images=0, ramp_images=BATCH, curriculum_accuracy=0.0, look_steps=1
        ),
        optimizer=OptimizerConfig(batch=BATCH),
        perturb={"crop": 0.3, "rotation": 0.3, "noise": 0.3, "jpeg": 0.3},
        run=RunConfig(device="cpu", precision="fp32", **run),
    )  # fmt: skip


def trained(config, data, steps=3):
    """The state after some steps, and what the last of them returned."""
    config.check()
    world = World(0, 1, torch.device("cpu"))
    state = TrainingState.build(config, world.device)
    step = Step(config, state, data, world, torch.float32)
    for _ in range(steps):
        terms = world.average_terms(step())
        state.progress.images += BATCH
    return state, terms


def assert_same_training(one, other):
    (state, terms), (expected, expected_terms) = one, other
    assert terms == pytest.approx(expected_terms, rel=2e-3, abs=1e-4)
    progress, wanted = (dataclasses.asdict(each.progress) for each in (state, expected))
    assert progress.pop("unread") == wanted.pop("unread")  # nothing: all was looked at
    assert progress.pop("precision") is wanted.pop("precision") is None  # settled by the loop
    assert progress == pytest.approx(wanted, rel=2e-3, abs=1e-4)
    for name in NETWORKS:
        parameters = dict(getattr(state, name).named_parameters())
        for path, parameter in getattr(expected, name).named_parameters():
            # A step of Adam is of the size of the learning rate, whatever the gradient's.
            difference = (parameters[path] - parameter).abs()
            assert difference.mean() < 2e-5 and difference.max() < 2e-3, (name, path)


@pytest.fixture(scope="module")
def whole(data):
    return trained(options(), data)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_the_same_step(data, whole, parts):
    assert_same_training(trained(options(accumulate=parts), data), whole)


def test_computing_activations_again_is_the_same_step(data, whole):
    assert_same_training(trained(options(recompute_from=8), data), whole)


class NoWaiting(TorchDispatchMode):
    """Refuses what would wait for a device, copy from the host to it, or have a shape by values."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in {
            "_local_scalar_dense", "lift_fresh", "nonzero", "masked_select", "is_nonzero", "equal",
        }, name  # fmt: skip
        return func(*args, **(kwargs or {}))


def test_what_a_step_computes_waits_for_no_device(data):
    """So a GPU can repeat it as a graph: every kind of step, once the tables are filled."""
    config = options(accumulate=2)
    config.loss.weight_noise, config.perturb = 1.0, dict.fromkeys(PERTURBATIONS, 0.2)
    world = World(0, 1, torch.device("cpu"))
    state = TrainingState.build(config, world.device)
    step = Step(config, state, data, world, torch.float32)
    for due in (Due(False, False, False, False), Due(True, True, True, True)):
        for mode in (contextlib.nullcontext(), NoWaiting()):
            step.captured.source.manual_seed(0)
            with mode:
                terms = step.compute(due)
        assert ("weight_noise" in terms) == ("r1" in terms) == due.r1


def test_the_comparison_would_see_a_difference(data, whole):
    other = options()
    other.loss.r1 = 1.1
    with pytest.raises(AssertionError):
        assert_same_training(trained(other, data), whole)


def test_disturbed_instances_are_read_every_few_steps_once_all_bits_are(data):
    config = options()
    config.loss.weight_noise, config.loss.weight_noise_interval = 1.0, 2
    named = []
    world = World(0, 1, torch.device("cpu"))
    state = TrainingState.build(config, world.device)
    step = Step(config, state, data, world, torch.float32)
    for images in (0, BATCH, 2 * BATCH):  # readable after the first step
        state.progress.images = images
        terms = step()
        named.append({"weight_noise", "disturbed_bit_accuracy"} & set(terms))
    assert [len(names) for names in named] == [0, 0, 2]
    assert 0 < terms["weight_noise"] < 10 and 0 <= terms["disturbed_bit_accuracy"] <= 1


def test_reading_disturbed_instances_moves_generator_and_decoder(data):
    states = []
    for weight in (0.0, 3.0):
        config = options()
        config.loss.weight_noise, config.loss.weight_noise_interval = weight, 1
        states.append(trained(config, data, steps=2)[0])
    for name in ("generator", "decoder"):
        first, second = (getattr(state, name).parameters() for state in states)
        assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True)), name


def test_chance_is_an_images_own():
    def draw():
        return Chance.draw(8, ["jpeg", "noise"], 16, torch.Generator().manual_seed(0))

    chance, again, rows = draw(), draw(), torch.tensor([5, 2])
    part = chance.of(rows)
    assert torch.equal(part.off, chance.off[rows])
    for name in ("places", "strengths", "numbers", "noise"):
        drawn = getattr(chance.perturbations, name)
        assert torch.equal(getattr(part.perturbations, name), drawn[rows])
        assert torch.equal(getattr(again.perturbations, name), drawn)


@pytest.mark.parametrize(
    ("processes", "accepted", "unit"), [(1, [32, 64, 96, 128], 32), (2, [64, 128], 64)]
)
def test_a_batch_that_cannot_be_split_evenly_is_refused(processes, accepted, unit):
    config, found = options(accumulate=2), []
    for config.optimizer.batch in range(16, 129, 16):
        try:
            config.check(world_size=processes)
        except UserError as error:
            assert f"accumulate=2 optimizer.batch must be a multiple of {unit}" in str(error)
        else:
            found.append(config.optimizer.batch)
    assert found == accepted


def test_recomputing_keeps_second_derivatives_and_saves_memory():
    torch.manual_seed(0)
    config = ModelConfig(resolution=32, channel_base=256, channel_max=16)
    plain = Discriminator(config)
    again = copy.deepcopy(plain)
    again.recompute_from = 16
    images = torch.randn(4, 3, 32, 32)
    gradients, kept = [], []
    for network in (plain, again):
        stored = []

        def keep(tensor, stored=stored):
            stored.append(tensor.numel())
            return tensor

        x = images.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = network(x)
        kept.append(sum(stored))
        r1_penalty(network(x), x).backward()
        gradients.append([p.grad for p in network.parameters()])
        assert logits.shape == (4,)
    assert kept[1] < 0.7 * kept[0]
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_sets_of_a_batch_do_not_see_one_another():
    torch.manual_seed(0)
    network = Discriminator(ModelConfig(resolution=16, channel_base=64, channel_max=8))
    real, fake = torch.randn(8, 3, 16, 16), torch.zeros(8, 3, 16, 16)
    both = network(torch.cat([real, fake]), sets=2)
    torch.testing.assert_close(both, torch.cat([network(real), network(fake)]))
    assert not torch.allclose(both, network(torch.cat([real, fake])))


def test_compile_compiles_generator_and_decoder(data, monkeypatch, tmp_path):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    config = options(compile=True)
    config.schedule.total_images, config.data.source = BATCH, "emoji64"
    monkeypatch.setattr(loop, "ImageSet", lambda *_, **__: data)
    train(config, tmp_path)
    assert compiled == ["Generator", "Decoder"]
