"""Keys that are read by inversion where latents are drawn: which latents, and which key?"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scalefp
from scalefp.cli import main
from scalefp.data.images import to_pil, to_uint8
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.loading import load
from scalefp.pretrained import directions, drawn
from scalefp.pretrained.drawn import ATTEMPTS, DrawnInverter, View, check_unknown
from scalefp.pretrained.history import Change, Histories, after
from scalefp.pretrained.inversion import InversionSizes
from scalefp.pretrained.laid import inside, laid
from scalefp.pretrained.release import InvertingModel
from scalefp.pretrained.source import Pictures
from tests.pretrained.own_generator import LATENT, SIDE, Bypass, Latents, Sketcher

BITS = 16
YAML = """# @package _global_
generator:
  _target_: tests.pretrained.own_generator.Sketcher
  weights: {folder}/sketcher.pt
inputs:
  _target_: tests.pretrained.own_generator.Latents
modulation:
  reader: inversion
  layers: [finer]
  deltas: [finer]
  key_gain: 0
  range: [0, 1]
  inversion_starts: 4
  inversion_steps: 60
model:
  resolution: 16
  n_bits: 16
schedule:
  total_images: 32
  ramp_images: 1
  decay_images: 1
  hide_psnr: 34
optimizer:
  batch: 2
run:
  tensorboard: false
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a generator of his own, and its options."""
    folder = tmp_path_factory.mktemp("sketcher")
    torch.manual_seed(4)
    network = Sketcher()
    with torch.no_grad():
        for parameter in network.parameters():  # so that pictures differ more than at first
            parameter.mul_(2.5 if parameter.ndim > 1 else 1)
    torch.save(network.state_dict(), folder / "sketcher.pt")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "sketcher.yaml").write_text(YAML.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def release(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release that one command makes of it."""
    run = tmp_path_factory.mktemp("runs") / "sketcher"
    options = [f"--config-dir={folder}", "experiment=sketcher", f"hydra.run.dir={run}"]
    assert main(["train", *options]) == 0
    return run / "release.safetensors"


@pytest.fixture(scope="module")
def model(release: Path) -> InvertingModel:
    model = load(release)
    assert isinstance(model, InvertingModel)
    return model


def test_one_command_writes_a_release_that_reads_its_keys(model: InvertingModel) -> None:
    reached = model.training["reached"]
    assert reached["bit_accuracy"] > 0.95
    assert reached["psnr"] == pytest.approx(34, abs=2)
    assert (model.config.starts, model.config.steps, model.config.rounds) == (4, 60, 6)


def test_files_of_an_instance_lead_to_its_key(
    model: InvertingModel, release: Path, tmp_path: Path
) -> None:
    key = Key.random(BITS)
    images = model.instantiate(key).sample(4, seed=11)
    files = []
    for number, image in enumerate(to_pil(to_uint8(images))):
        image.save(tmp_path / f"{number}.png")
        files.append(tmp_path / f"{number}.png")
    with torch.inference_mode():  # as callers may have it, of a release that was not used before
        read = load(release).decode(files, progress=False).bits
    assert (read == key.bits).mean() > 0.95


@pytest.mark.parametrize("change", [("jpeg", 50), ("resize", 0.5)])
def test_a_file_is_read_by_what_is_left_in_it(
    model: InvertingModel, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [Key.from_bits(bits) for bits in np.random.default_rng(0).integers(0, 2, (8, BITS))]
    latents = model.inputs.draw(len(keys), torch.Generator().manual_seed(7)).split(1)
    with torch.no_grad():
        made = [model.instantiate(key)(z) for key, z in zip(keys, latents, strict=True)]
    files = after(to_pil(to_uint8(torch.cat(made))), change)
    bits = np.stack([key.bits for key in keys])
    knowing = (model.decode(files, search=False, progress=False).bits == bits).mean()
    monkeypatch.setattr(Histories, "told", lambda *picture, **how: None)
    pixelwise = (model.decode(files, search=False, progress=False).bits == bits).mean()
    assert knowing > pixelwise + 0.05, (knowing, pixelwise)


def test_crops_and_turned_pictures_are_read_where_they_lie(model: InvertingModel) -> None:
    keys = [Key.from_bits(bits) for bits in np.random.default_rng(1).integers(0, 2, (4, BITS))]
    latents = model.inputs.draw(len(keys), torch.Generator().manual_seed(8)).split(1)
    places = torch.tensor([[0.35, 0, 0, 0], [0, 0.17, 0, 0], [0.3, -0.1, 0, 0], [0, 0, 0, 0]])
    with torch.no_grad():
        made = [model.instantiate(key)(z) for key, z in zip(keys, latents, strict=True)]
    files = to_pil(to_uint8(laid(torch.cat(made), places)))
    bits = np.stack([key.bits for key in keys])
    found = (model.decode(files, progress=False).bits == bits).mean(axis=1)
    as_they_are = (model.decode(files, search=False, progress=False).bits == bits).mean(axis=1)
    assert found.mean() > 0.9 and as_they_are[3] > 0.9 and as_they_are[:3].mean() < 0.85


def test_what_a_key_changed_of_a_picture_says_nothing_on_another(model: InvertingModel) -> None:
    latents = model.inputs.draw(24, torch.Generator().manual_seed(3))
    keys = [Key.random(BITS) for _ in latents]
    laid = []
    for place, key in enumerate(keys):
        hers, other = latents[place : place + 1], latents[place - 1 : place or None]
        change = model.instantiate(key)(hers) - model.original(hers)
        laid.append((model.original(other) + change).clamp(-1, 1))
    read = model.decode(torch.cat(laid), progress=False).bits
    agreeing = (read == np.stack([key.bits for key in keys])).mean()
    assert agreeing == pytest.approx(0.5, abs=0.15)  # 384 bits; those of one picture go together


class Sum(nn.Module):
    """A picture that is linear in latents and signs, for which one round is a closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.randn(LATENT + BITS, 3 * SIDE * SIDE) / 30)
        self.network = self

    def original(self, latents: Tensor) -> Tensor:
        return self.under(torch.zeros(1, BITS), latents)

    def under(self, signs: Tensor, latents: Tensor) -> Tensor:
        made = latents @ self.by[:LATENT] + signs @ self.by[LATENT:]
        return made.unflatten(1, (3, SIDE, SIDE))


def inverter(parent: Any, rounds: int = 2) -> DrawnInverter:
    sizes = InversionSizes(SIDE, BITS, 20, 1, 2, rounds)
    return DrawnInverter(parent, Latents(), Pictures(-1, 1), sizes)


def test_signs_of_a_linear_picture_are_found_exactly() -> None:
    torch.manual_seed(1)
    parent = Sum()
    signs, latents = torch.randn(1, BITS).sign(), torch.randn(1, LATENT)
    with torch.no_grad():
        picture = parent.under(signs, latents)
    ticks = []
    found = inverter(parent, rounds=4).signs(picture, lambda: ticks.append(1))
    torch.testing.assert_close(found, signs, atol=1e-2, rtol=0)
    assert len(ticks) == inverter(parent, rounds=4).ticks == ATTEMPTS * 24


def test_signs_of_which_a_picture_says_nothing_stay_small() -> None:
    torch.manual_seed(1)
    parent = Sum()
    with torch.no_grad():
        parent.by[-1] = 0
        noise = 0.1 * torch.randn(1, 3, SIDE, SIDE)
        picture = parent.under(torch.ones(1, BITS), torch.randn(1, LATENT)) + noise
    found = inverter(parent, rounds=4).signs(picture)
    assert abs(float(found[0, -1])) < 0.01
    assert (found[0, :-1] > 0.3).all()


def test_a_picture_that_is_not_explained_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    parent, tried = Sum(), []
    signs, latents = torch.randn(1, BITS).sign(), torch.randn(1, LATENT)
    with torch.no_grad():
        picture = parent.under(signs, latents)
    explain = DrawnInverter._explain

    def misled(reader: DrawnInverter, seen: Tensor, at: Tensor, *rest: Any) -> Any:
        tried.append(at)
        right = len(tried) == 2  # the first time, another picture is to be explained
        found = explain(reader, seen if right else torch.rand_like(seen), at, *rest)
        return found if right else replace(found, apart=1.0, certain=False)

    monkeypatch.setattr(DrawnInverter, "_explain", misled)
    found, ticks = inverter(parent, rounds=4), []
    read = found.signs(picture, lambda: ticks.append(1))
    torch.testing.assert_close(read, signs, atol=1e-2, rtol=0)
    assert len(tried) == 2 and not torch.equal(*tried)  # other latents were drawn
    assert len(ticks) == found.ticks
    monkeypatch.setattr(DrawnInverter, "_explain", explain)
    noise = torch.rand_like(picture)  # of which nothing is explained
    with torch.no_grad():
        assert not found._explain(noise, latents, torch.zeros(1, 4), lambda: None).certain


def test_signs_that_cannot_be_decided_are_not_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    parent = Sum()
    with torch.no_grad():
        picture = parent.under(3 * torch.randn(1, BITS).sign(), torch.randn(1, LATENT))
        monkeypatch.setattr(drawn, "likely", lambda normal, slope, values, *rest: 9 * values)
        found = inverter(parent)._explain(
            picture, torch.zeros(1, LATENT), torch.zeros(1, 4), lambda: None
        )
    assert not found.certain
    assert found.signs.abs().max() == 1  # least squares found 3


def test_a_latent_of_which_nothing_depends_does_no_harm() -> None:
    torch.manual_seed(1)
    parent = Sum()
    with torch.no_grad():
        parent.by[0] = 0
        signs = torch.randn(1, BITS).sign()
        picture = parent.under(signs, torch.randn(1, LATENT))
    found = inverter(parent, rounds=4).signs(picture)
    torch.testing.assert_close(found, signs, atol=1e-2, rtol=0)


@pytest.mark.parametrize(("kind", "layer"), [(Sketcher, "finer"), (Bypass, "fine")])
def test_derivatives_are_those_of_autograd(kind: type[nn.Module], layer: str) -> None:
    torch.manual_seed(2)
    parent = scalefp.modulate(
        kind(), BITS, [layer], deltas=[layer], key_gain=0, factored=True
    ).requires_grad_(False)
    reads = inverter(parent)
    latents, signs = torch.randn(1, LATENT), torch.randn(1, BITS)
    places = torch.tensor([[0.3, 0.1, 0.05, -0.02]])
    with torch.no_grad():
        passage = reads._histories.passage(("jpeg", 50))
        view = View(passage, inside(places, SIDE), still=False)
        at = view.of(reads._made(latents, signs), places)
        found = reads._derivatives(view, at[0], latents, places, signs)
    by_each = torch.autograd.functional.jacobian(
        lambda z, p, s: view.of(reads._made(z, s), p)[0], (latents, places, signs)
    )
    wanted = torch.cat([one.flatten(1) for one in by_each], dim=1)
    # Within a step some activations change sign, where the generator has a kink.
    assert (found - wanted).norm() < 0.1 * wanted.norm()
    assert reads._shares == (kind is Sketcher)


@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d", "Linear"])
def test_several_keys_at_once_are_as_one_after_another(kind: str) -> None:
    torch.manual_seed(3)
    layer: nn.Module = {
        "Conv2d": lambda: nn.Conv2d(4, 6, 3, padding=1),
        "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 6, 4, 2, 1),
        "Linear": lambda: nn.Linear(4, 6),
    }[kind]()
    parent = scalefp.modulate(nn.Sequential(layer), BITS, ["0"], deltas=["0"], factored=True)
    x = torch.randn(3, 5, 4) if isinstance(layer, nn.Linear) else torch.randn(3, 4, 5, 5)
    signs = torch.randn(3, BITS)
    with torch.no_grad():
        each = torch.cat([parent.under(signs[i : i + 1], x[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(parent.under(signs, x), each, atol=1e-5, rtol=1e-5)
        one = torch.cat([parent.under(signs[:1], x[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(parent.under(signs[:1], x), one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_change_of_weights_is_seen_through_its_direction_alone(transposed: bool) -> None:
    """Where features have nothing along a bit's direction, the bit changes nothing."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(5, 7, 4, 2, 1) if transposed else nn.Conv2d(5, 7, 3, padding=1)
    source = torch.Generator().manual_seed(0)
    m, x = directions.sees(layer), torch.randn(1, 5, 6, 6, generator=source)
    columns = directions.seen(layer, x)[0]  # [m, places]
    assert columns.shape == (m, 36)
    first, second = directions.factors(torch.eye(m), layer, 2, source)
    assert first.shape == (2, len(layer.weight)) and second.shape == (2, layer.weight[0].numel())
    parent = scalefp.modulate(
        nn.Sequential(layer), 2, ["0"], deltas=["0"], key_gain=0, factored=True
    )
    (keyed, _) = parent.layers()[0]
    assert keyed.factors is not None
    along = first if transposed else second
    keyed.factors[0].data, keyed.factors[1].data = first, second
    with torch.no_grad():
        changed = parent.under(torch.tensor([[1.0, 0.0]]), x) - parent.original(x)
    power = float((along[0] @ columns).square().sum())
    if not transposed:  # each output channel is that projection, times a number
        wanted = keyed.delta_gain**2 * power * float(first[0].square().sum())
        assert float(changed.square().sum()) == pytest.approx(wanted, rel=1e-3)
    along[0] = 0
    with torch.no_grad():
        nothing = parent.under(torch.tensor([[1.0, 0.0]]), x) - parent.original(x)
    assert changed.abs().max() > 1e-3 and nothing.abs().max() < 1e-6  # but for rounding


def test_fewer_directions_than_bits_are_mixed() -> None:
    layer = nn.ConvTranspose2d(5, 7, 4, 2, 1)
    mixed, drawn = directions.factors(torch.eye(4, 5), layer, 16, torch.Generator().manual_seed(0))
    assert mixed.shape == (16, 5) and (mixed[:, 4] == 0).all()
    assert torch.linalg.matrix_rank(torch.einsum("ni,no->nio", mixed, drawn).flatten(1)) == 16


def test_directions_are_those_that_places_say_least_of() -> None:
    source = torch.Generator().manual_seed(0)
    places = torch.zeros(6, 9, dtype=torch.float64)
    places[:3] = torch.randn(3, 9, generator=source, dtype=torch.float64)
    turned = torch.linalg.qr(torch.randn(6, 6, generator=source, dtype=torch.float64))[0]
    found = directions.unbound(turned, places)
    assert found.shape == (3, 6)
    torch.testing.assert_close(found @ places, torch.zeros(3, 9).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(found @ found.T, torch.eye(3).double())


def test_features_are_sums_over_pictures() -> None:
    columns = torch.randn(5, 4, 7)
    found = directions.Features.none(4, torch.device("cpu"))
    found.add(columns[:2])
    found.add(columns[2:])
    flat = columns.double().transpose(0, 1).flatten(1)
    assert found.pictures == 5
    torch.testing.assert_close(found.moment / 5, flat @ flat.T / 35)
    torch.testing.assert_close(found.mean / 5, flat.mean(dim=1))
    torch.testing.assert_close(found.places / 5, columns.double().mean(dim=0))


def test_more_unknown_numbers_than_can_be_found_are_refused() -> None:
    check_unknown(torch.zeros(1, 3968), 128)
    with pytest.raises(UserError, match="at most 4096 numbers .* gives 3969, and model.n_bits=128"):
        check_unknown(torch.zeros(1, 3969), 128)
