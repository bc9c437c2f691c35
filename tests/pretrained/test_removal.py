"""What recipients do to the weights of a generator that others trained."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parity import make_folder
from scalefp.errors import UserError
from scalefp.evaluation import finetune
from scalefp.evaluation import run as evaluate_module
from scalefp.evaluation.removal import (
    FINE_TUNING,
    OWN_PICTURES,
    Attempt,
    Tampered,
    attempts,
    possible,
    tunings,
)
from scalefp.evaluation.report import markdown
from scalefp.evaluation.run import evaluate
from scalefp.evaluation.samples import EvaluateConfig, LiftingConfig, Samples
from scalefp.evaluation.tamper import TAMPERINGS, is_map
from scalefp.evaluation.targets import LOSS
from scalefp.loading import load_generating
from scalefp.metrics import Statistics, frechet_distance
from scalefp.pretrained.adopted import adopt
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.pretrained.release import PretrainedModel, save_pretrained
from scalefp.pretrained.state import AdoptedState, ReaderSizes
from scalefp.training.compose import compose_training
from tests.pretrained import own_generator


class Corners(nn.Module):
    """An extractor for tests: the mean colours of quarters."""

    name = "corners"

    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, images.shape[-1] // 2).flatten(1)


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    """The release of a user's generator before any training."""
    folder = tmp_path_factory.mktemp("adopted")
    torch.manual_seed(3)
    network = own_generator.Generator()
    with torch.no_grad():  # its pictures differ
        for parameter in network.parameters():
            parameter.mul_(2)
        network.body[3].weight.uniform_(0.5, 1.5)
    torch.save(network.state_dict(), folder / "mine.pt")
    config = compose_training(
        [
            "+generator._target_=tests.pretrained.own_generator.Generator",
            f"+generator.weights={folder}/mine.pt",
            "+inputs._target_=tests.pretrained.own_generator.Latents",
            "modulation.range=[0,1]", "modulation.layers=[out]", "modulation.deltas=[out]",
            "model.resolution=16", "model.n_bits=16", "model.decoder_base=192",
            "model.decoder_max=24",
        ]
    )  # fmt: skip
    state = AdoptedState.build(config, adopt(config), torch.device("cpu"))
    path = folder / "release.safetensors"
    save_pretrained(
        path, ReaderSizes.of(config.model), config, state.parent, state.decoder, {"images": 0}
    )
    model = load_generating(path)
    assert isinstance(model, PretrainedModel)
    return model


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvaluateConfig:
    monkeypatch.setattr(finetune, "WARM_UP_IMAGES", 32)
    return EvaluateConfig(
        keys=4, images_per_key=2, tamper_keys=3, tamper_images=8, pools=[1], issued=[1],
        data=make_folder(tmp_path / "data", 8, 0), feature_images=20, finetune_images=[32, 64],
        finetune_keys=1,
    )  # fmt: skip


def tampered(model: PretrainedModel, config: EvaluateConfig) -> Tampered:
    return Tampered(model, Samples(model, config), Corners(), config)


def test_what_is_changed_are_the_parameters_of_the_original_class(
    adopted: PretrainedModel, config: EvaluateConfig
) -> None:
    measured = tampered(adopted, config)
    before = measured.samples.instance(0)
    (changed, *_) = measured.changed(Attempt("noise", 0.25))
    assert isinstance(changed, PretrainedInstance)
    assert type(changed.network) is own_generator.Generator
    old, new = before.state_dict(), changed.state_dict()
    assert list(new) == list(old) == list(own_generator.Generator().state_dict())
    learned = {name for name, _ in changed.network.named_parameters()}
    for name, tensor in old.items():
        if name not in learned:
            assert torch.equal(new[name], tensor), name
        elif tensor.numel() >= 100:
            ratio = float((new[name] - tensor).std() / tensor.std(correction=0))
            assert abs(ratio - 0.25) < 5 * 0.25 / (2 * tensor.numel()) ** 0.5, name
    assert changed.sample(2).shape == (2, 3, 16, 16)


def test_two_copies_are_averaged_as_they_are(
    adopted: PretrainedModel, config: EvaluateConfig
) -> None:
    measured = tampered(adopted, config)
    (half, *_) = measured.changed(Attempt("average", 0.5))
    own, other = (measured.samples.instance(k).state_dict() for k in (0, 2))
    for name, tensor in half.state_dict().items():
        mean = (own[name] + other[name]) / 2
        torch.testing.assert_close(tensor, mean.to(tensor.dtype), msg=name)
    assert not torch.equal(own["out.weight"], other["out.weight"])


def test_loss_is_distance_to_what_the_original_makes(
    adopted: PretrainedModel, config: EvaluateConfig
) -> None:
    measured = tampered(adopted, config)
    untouched, noisy = measured.nothing(), measured.attempt(Attempt("noise", 0.5))
    assert untouched["loss"] == 0 and untouched["psnr"] == 100
    assert noisy["psnr"] < 40
    z = own_generator.Latents().draw(2000, torch.Generator().manual_seed(1))
    with torch.no_grad():
        original = adopted.parent.network(z) * 2 - 1
    many = Statistics.of(Corners()(original).numpy())
    own = Statistics.of(Corners()(measured.untouched(3).flatten(0, 1) / 127.5 - 1).numpy())
    # Of the original's pictures it took 20 others, which leaves chance.
    assert untouched["distance"] == pytest.approx(frechet_distance(own, many), rel=0.5)
    assert noisy["loss"] == noisy["distance"] / untouched["distance"] - 1


def test_copies_are_trained_on_clean_pictures_and_on_their_own(
    adopted: PretrainedModel, config: EvaluateConfig
) -> None:
    measured = tampered(adopted, config)
    assert tunings(adopted, config) == [FINE_TUNING, OWN_PICTURES]
    clean, own = (measured.fine_tuning(name) for name in (FINE_TUNING, OWN_PICTURES))
    for rows, name in ((clean, FINE_TUNING), (own, OWN_PICTURES)):
        assert [row["strength"] for row in rows] == [0, 32, 64]
        assert {(row["tampering"], row["keys"]) for row in rows} == {(name, 1)}
        assert rows[0]["psnr"] == 100 > rows[1]["psnr"] > rows[2]["psnr"]
    assert clean[2] != {**own[2], "tampering": FINE_TUNING}
    # The pictures are those of the original, and those of the copy.
    assert measured.clean_pictures.shape == (20, 3, 16, 16)
    config.tamperings = [OWN_PICTURES]
    assert tunings(adopted, config) == [OWN_PICTURES]


def test_maps_are_flattened_where_there_are_some(
    adopted: PretrainedModel, config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = attempts(config)
    without = [attempt for attempt in wanted if attempt.tampering != "flatten"]
    assert possible(adopted, config) == without != wanted
    network = own_generator.Generator()
    network.offset = nn.Parameter(torch.zeros(1, 12, 4, 4))
    assert is_map(*next(named for named in network.named_parameters()))
    monkeypatch.setitem(adopted.parent._modules, "network", network)
    assert possible(adopted, config) == wanted
    config.tamperings = ["melt"]
    with pytest.raises(UserError, match="'melt'"):
        possible(adopted, config)


def test_an_evaluation_says_what_was_changed_and_what_cannot_be(
    adopted: PretrainedModel,
    config: EvaluateConfig,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(evaluate_module, "choose_extractor", lambda which, path: Corners())
    config.perturbations, config.unrelated_images, config.grid = [], 4, 2
    config.lifting = LiftingConfig(estimators=[], pictures=2)
    config.tamper_keys = config.tamper_images = 2
    results = evaluate(adopted, config, tmp_path / "out")
    changed = {row["tampering"] for row in results["tampering"]["rows"]}
    assert changed == TAMPERINGS.keys() - {"flatten"} | {FINE_TUNING, OWN_PICTURES}
    assert results["tampering"]["at_loss"].keys() == {"noise", "prune", "average"}
    assert results["tampering"]["at_loss"]["noise"]["loss"] <= LOSS
    said = [sentence for sentence in results["left_out"] if "copies have none" in sentence]
    assert said == [
        "Left out: flattening of constant maps, since this generator's copies have none."
    ]
    assert "tampered.png" in results["pictures"]
    page = markdown(results)
    assert "fine-tuning is given 20 pictures of it, more than a recipient has" in page
    assert "Own pictures: 20" in page
