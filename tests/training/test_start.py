"""Networks handed from one training to another, and to a release."""

import dataclasses

import pytest
import torch

from scalefp.config import ModelConfig, OptimizerConfig, TrainConfig
from scalefp.errors import UserError
from scalefp.networks.decoder import Decoder
from scalefp.networks.generator import Generator
from scalefp.release.networks import Origin, network_file, save_networks
from scalefp.training.schedule import Progress
from scalefp.training.start import read_parts, start_from_networks, write_networks
from scalefp.training.state import TrainingState, save_training

MODEL = ModelConfig(
    resolution=16, n_bits=8, latent_dim=4, channel_base=64, channel_max=8, embedding_width=8,
    decoder_resolution=16, decoder_base=64, decoder_max=8, decoder_localizer=True,
)  # fmt: skip
CPU = torch.device("cpu")
OPTIONS = {"model." + name: value for name, value in dataclasses.asdict(MODEL).items()}


def config(**changes):
    return TrainConfig(model=dataclasses.replace(MODEL, **changes), optimizer=OptimizerConfig(16))


@pytest.fixture
def run(tmp_path):
    """The state of a training that has gone some way."""
    state = TrainingState.build(config(), CPU)
    for part in (state.average_generator, state.average_decoder):
        for parameter in part.parameters():
            parameter.add_(0.25)
    state.progress = Progress(
        images=640, n_active=8, readable_at=320, consistency_weight=77.0, precision="bf16",
        bit_accuracy=0.9, evidence=6.0,
    )  # fmt: skip
    save_training(tmp_path / "state.pt", state, OPTIONS)
    return state, tmp_path / "state.pt"


def assert_halved(network, of):
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, of.state_dict()[name].half().float()), name


def test_a_training_goes_on_from_the_averages_of_another(run, tmp_path):
    before, path = run
    write_networks(path, tmp_path / "networks")
    state = TrainingState.build(dataclasses.replace(config(), seed=1), CPU)
    start_from_networks(tmp_path / "networks", state, config())
    assert_halved(state.generator, before.average_generator)
    assert_halved(state.average_generator, before.average_generator)
    assert_halved(state.decoder, before.average_decoder)
    assert_halved(state.average_decoder, before.average_decoder)
    assert_halved(state.discriminator, before.discriminator)
    # It stands where the other stood, but computes in a precision of its own.
    assert state.progress == dataclasses.replace(before.progress, precision=None)
    # The optimizers still move these very networks.
    held = {id(p) for group in state.reader_optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in state.generator.parameters()} <= held
    assert all(p.requires_grad for p in state.generator.parameters())


def test_networks_that_do_not_say_how_far_they_are_count_as_readable(run, tmp_path):
    state = run[0]
    weights = {
        name: getattr(state, name).state_dict()
        for name in ("generator", "decoder", "discriminator")
    }
    save_networks(tmp_path / "networks", weights, Origin(MODEL, 1000, None))
    options = config()
    options.loss.consistency = 500.0
    start_from_networks(tmp_path / "networks", state, options)
    progress = state.progress
    assert (progress.images, progress.n_active, progress.readable_at) == (1000, 8, 1000)
    assert progress.ramp(options) == 0 and progress.consistency_weight == 500


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channel_max": 4}, "channel_max=8, not 4"),
        ({"key_maps": False}, "key_maps=True, not False"),
    ],
)
def test_networks_of_other_sizes_are_refused_by_name(run, tmp_path, changes, words):
    write_networks(run[1], tmp_path / "networks")
    state = TrainingState.build(config(**changes), CPU)
    with pytest.raises(UserError, match=words):
        start_from_networks(tmp_path / "networks", state, config(**changes))


def test_damaged_progress_is_refused(run, tmp_path):
    names = ("generator", "decoder", "discriminator")
    weights = {name: getattr(run[0], name).state_dict() for name in names}
    save_networks(tmp_path / "n", weights, Origin(MODEL, 1, {"wrong": 1}))
    with pytest.raises(UserError, match="does not say where its training stood"):
        start_from_networks(tmp_path / "n", run[0], config())


def test_the_state_of_another_kind_of_training_has_no_such_networks(tmp_path):
    torch.save({"images": 1, "encoder": {}}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="no state of a generator's training"):
        write_networks(tmp_path / "state.pt", tmp_path / "networks")
    assert not (tmp_path / "networks").exists()


def test_a_release_is_made_of_generator_and_decoder(run, tmp_path):
    before, path = run
    write_networks(path, tmp_path / "networks")
    generator, decoder, note = read_parts(tmp_path / "networks")
    assert_halved(generator, before.average_generator)
    assert_halved(decoder, before.average_decoder)
    assert note["images"] == 640
    assert note["reached"] == {"active_bits": 8, "bit_accuracy": 0.9, "evidence": 6.0}


def test_parts_of_different_trainings_make_no_release(run, tmp_path):
    write_networks(run[1], tmp_path / "networks")
    sizes = dataclasses.replace(MODEL, decoder_max=4)
    parts = {"decoder": Decoder(sizes).state_dict()}
    save_networks(tmp_path / "networks", parts, Origin(sizes, 1, None))
    with pytest.raises(UserError, match="other sizes"):
        read_parts(tmp_path / "networks")
    assert network_file(tmp_path / "networks", "decoder").exists()


@pytest.mark.parametrize("key_maps", [True, False])
def test_a_stronger_key_changes_more_and_the_picture_stays(key_maps):
    torch.manual_seed(0)
    generator = Generator(dataclasses.replace(MODEL, key_maps=key_maps))
    z = torch.randn(16, 4)
    bits = torch.randint(0, 2, (2, 16, 8))
    distances = []
    for factor in (1.0, 1.5):
        generator.strengthen_key_(factor)
        with torch.no_grad():
            first, second = (generator(z, key) for key in bits)
        distances.append((first - second).square().mean().sqrt().item())
    assert distances[1] / distances[0] == pytest.approx(1.5, rel=0.1)
