"""Another method is measured as a release is, but for its weights, which it does not have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import Run, assert_mistake
from parity import N_BITS, SIZE, ParityInstance, ParityModel, make_folder, small_config
from scalefp.attribution.reading import Reading
from scalefp.errors import UserError
from scalefp.evaluation.method import OtherMethod, load_method
from scalefp.evaluation.report import markdown
from scalefp.evaluation.run import evaluate
from scalefp.key import Key

EXAMPLE = Path(__file__).parents[2] / "experiments" / "other-method"


class Parity:
    """The model of known figures as another's method: no instances, no search."""

    n_bits, resolution = N_BITS, SIZE

    def sample(self, key: Key, n: int, *, seed: int) -> Any:
        return ParityInstance(key, False, 0.0).sample(n, seed=seed)

    def decode(self, images: list[Image.Image]) -> Reading:
        return Reading(ParityModel().decode(images).logits)


def test_its_figures_are_those_of_a_release(tmp_path: Path) -> None:
    small = small_config(tmp_path)
    ours = evaluate(ParityModel(), small)  # type: ignore[arg-type]
    small.tamperings = None  # all, of which none can be
    theirs = evaluate(Parity(), small, tmp_path / "out")
    for part in ("reading", "hiding", "unrelated", "targets"):
        assert theirs[part] == ours[part]
    assert theirs["tampering"] == {"untouched": None, "rows": [], "at_loss": {}}
    assert theirs["left_out"][0].startswith("Left out: changes of weights")
    assert theirs["model"]["method"] == "Parity" and theirs["model"]["n_bits"] == N_BITS
    page = markdown(theirs)
    assert "Parity `" in page and "tampered.png" not in page and "strengths.png" in page


@pytest.mark.parametrize("form", ["PIL", "uint8", "float", "array"])
def test_images_come_in_every_form(form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, SIZE, SIZE), dtype=np.uint8)

    class Pixels(Parity):
        def sample(self, key: Key, n: int, *, seed: int) -> Any:
            return {
                "PIL": [Image.fromarray(x.transpose(1, 2, 0)) for x in pixels],
                "uint8": torch.from_numpy(pixels),
                "float": torch.from_numpy(pixels) / 127.5 - 1,
                "array": pixels,
            }[form]

    made = OtherMethod(Pixels()).instantiate(Key.random(N_BITS)).sample(2)
    assert made.dtype == torch.float32
    assert torch.allclose(made, torch.from_numpy(pixels) / 127.5 - 1, atol=1e-6)


def test_what_a_method_does_wrong_is_said() -> None:
    class Deaf:
        n_bits, resolution, sample = 8, 16, None

    with pytest.raises(UserError, match="Deaf has no decode"):
        OtherMethod(Deaf())  # type: ignore[arg-type]

    class Wrong(Parity):
        def sample(self, key: Key, n: int, *, seed: int) -> Any:
            return torch.zeros(n, 3, 8, 8)

        def decode(self, images: Any) -> Any:
            return np.zeros((len(images), 3))

    with pytest.raises(UserError, match=r"Wrong.sample gave images of shape \[2, 3, 8, 8\]"):
        OtherMethod(Wrong()).instantiate(Key.random(N_BITS)).sample(2)
    for count in (1, 2):
        with pytest.raises(UserError, match="key"):
            OtherMethod(Wrong()).decode([Image.new("RGB", (16, 16))] * count)


def test_other_code_or_settings_have_another_digest() -> None:
    def digest(**settings: Any) -> str:
        method = Parity()
        vars(method).update(settings)
        return OtherMethod(method).digest

    assert digest(strength=1) == digest(strength=1)
    assert len({digest(), digest(strength=1), digest(strength=2)}) == 3
    assert digest(digest="mine") == "mine"


def test_other_weights_have_another_digest() -> None:
    """Also where they are shown alike: figures of a training before this one are not taken over."""

    def digest(**held: Any) -> str:
        method: Any = Parity()
        vars(method).update(held)
        return OtherMethod(method).digest

    def network(last: float) -> torch.nn.Module:
        made = torch.nn.Linear(64, 64, dtype=torch.bfloat16)
        with torch.no_grad():
            made.weight.zero_()[-1, 0], made.bias.zero_()[0] = last, 0
        return made

    kinds: list[Any] = [network, lambda x: network(x).weight, lambda x: np.full(10**4, x)]
    kinds += [lambda x: {("a", 1): [network(x)]}, lambda x: torch.tensor(x)]
    for kind in kinds:
        assert digest(held=kind(1.0)) == digest(held=kind(1.0)) != digest(held=kind(2.0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": 1}, "_target_"),
        ({"_target_": "no.such.Class"}, "no.such.Class cannot be made: .*No module named"),
        ({"_target_": "fractions.Fraction", "wrong": 1}, "cannot be made"),
        ({"_target_": "fractions.Fraction"}, "Fraction has no n_bits"),
    ],
)
def test_a_method_that_cannot_be_made(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_method(options)


def test_the_example_reads_its_marks_by_one_command(run: Run, tmp_path: Path) -> None:
    data = make_folder(tmp_path / "data", 12, seed=0)
    quick = [
        "measure=quick", "measure.features=none", "measure.unrelated_images=4",
        "measure.perturbations=[jpeg]", f"measure.data={data}", "--json",
    ]  # fmt: skip
    own = ("--config-dir", EXAMPLE, "method=spread_spectrum")
    result = run("evaluate", *own, *quick)
    assert result.code == 0, result.err
    points = {point["strength"]: point["mean"] for point in result.json["reading"]}
    assert points[0] > 0.95  # as files
    assert points[20] < points[90]  # strong compression takes it off
    (folder,) = Path("evaluation").iterdir()
    assert folder.name.startswith("SpreadSpectrum-")
    assert json.loads((folder / "results.json").read_text())["model"]["method"] == "SpreadSpectrum"

    assert_mistake(run("evaluate", *own, "checkpoint=emoji"), "evaluate one thing")
    assert_mistake(run("evaluate", *own, "method.strong=1"), "method.strong")
    assert_mistake(run("evaluate", *own, "+method.strong=1"), "cannot be made", "strong")
