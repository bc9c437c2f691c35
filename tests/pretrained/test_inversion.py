"""Keys that are read by inversion: which latents, and which key, make this picture?"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import scalefp
from scalefp.cli import main
from scalefp.data.images import to_pil, to_uint8
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.loading import load
from scalefp.perturb import jpeg
from scalefp.pretrained import directions, inversion
from scalefp.pretrained.inversion import middle
from scalefp.pretrained.release import InvertingModel
from tests.pretrained.own_generator import AUTOENCODER, Coder, Painter

YAML = (
    AUTOENCODER
    + """modulation:
  reader: inversion
  layers: [out]
  deltas: [out]
  key_gain: 0
  range: [0, 1]
  inversion_steps: 24
model:
  resolution: 64
  n_bits: 16
schedule:
  total_images: 4
  ramp_images: 1
  decay_images: 1
  hide_psnr: 34
optimizer:
  batch: 2
run:
  tensorboard: false
"""
)


def scene(seed: int, width: int = 80, height: int = 72) -> Image.Image:
    """A picture of smooth colours with edges and some grain."""
    source = np.random.default_rng(seed)
    coarse = source.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = source.normal(0, 6, (height, width, 1))
    return Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))


def pixels_of(picture: Image.Image) -> torch.Tensor:
    """Its pixels [1, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: an autoencoder of his own, pictures, and its options."""
    folder = tmp_path_factory.mktemp("autoencoder")
    torch.manual_seed(5)
    torch.save(Painter().state_dict(), folder / "painter.pt")
    torch.save(Coder().state_dict(), folder / "coder.pt")
    (folder / "pictures").mkdir()
    for seed in range(6):
        scene(seed).save(folder / "pictures" / f"{seed}.png")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "painter.yaml").write_text(YAML.format(folder=folder, side=64))
    return folder


@pytest.fixture(scope="module")
def release(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one command makes of it."""
    runs = tmp_path_factory.mktemp("runs")
    options = [f"--config-dir={folder}", "experiment=painter", f"hydra.run.dir={runs}/painter"]
    assert main(["train", *options]) == 0
    return runs / "painter" / "release.safetensors"


def test_one_command_writes_a_release_that_says_what_it_reached(release: Path) -> None:
    model = load(release)
    assert isinstance(model, InvertingModel)
    reached = model.training["reached"]
    assert reached["active_bits"] == 16 and reached["bit_accuracy"] > 0.95
    assert reached["psnr"] == pytest.approx(34, abs=1.5)
    (line,) = (release.parent / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["bit_accuracy"] == reached["bit_accuracy"]
    assert {path.name.split("-")[0] for path in (release.parent / "grids").iterdir()} == {
        "keys", "difference",
    }  # fmt: skip


def test_files_of_every_size_lead_to_their_key(release: Path, tmp_path: Path) -> None:
    model = load(release)
    assert isinstance(model, InvertingModel)
    for number, (width, height) in enumerate([(64, 64), (81, 70), (120, 48)]):
        key = Key.random(16)
        made = model.instantiate(key).reconstruct(pixels_of(scene(50 + number, width, height)))
        file = tmp_path / f"{number}.png"
        to_pil(to_uint8(made))[0].save(file)
        assert model.decode(file, progress=False).bits[0].tolist() == key.bits.tolist()


def test_crops_are_read_from_where_their_grid_begins(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, key = load(release), Key.random(16)
    assert isinstance(model, InvertingModel) and model.searches
    made = to_pil(to_uint8(model.instantiate(key).reconstruct(pixels_of(scene(70, 80, 88)))))[0]
    crop = made.crop((3, 1, 79, 86))  # of blocks of 4 pixels, the first whole one is at 1 and 3
    monkeypatch.setattr(inversion, "grid_of", lambda *about: (3, 1))
    monkeypatch.setattr(inversion, "turn_of", lambda *about: 0.0)
    assert model.decode(crop, progress=False).bits[0].tolist() == key.bits.tolist()
    beside = model.decode(crop, search=False, progress=False).bits[0]
    assert (beside != key.bits).sum() >= 2


@pytest.mark.parametrize("place", [(0, 0), (3, 6)])
def test_jpeg_files_are_compared_by_what_is_left_in_their_blocks(place: tuple[int, int]) -> None:
    """Of the true picture what JPEG does is of one deviation, wherever the part begins."""
    top, left = place
    truth, other = (pixels_of(scene(seed, 96, 80)) for seed in (80, 81))
    file = pixels_of(jpeg(to_pil(to_uint8(truth))[0], 50))
    apart = inversion.comparing(
        file, place, file[:, :, top:, left:], truth[:, :, top:, left:]
    )  # fmt: skip
    explained, another = (
        float(apart(one[:, :, top:, left:]).square().mean()) for one in (truth, other)
    )
    assert 0.2 < explained < 1.35 and another > 10 * explained
    assert apart(truth[:, :, top:, left:]).numel() == 3 * (80 - 8 * (top > 0)) * (
        96 - 8 * (left > 0)
    )


def test_other_files_are_compared_pixel_by_pixel() -> None:
    picture, made = pixels_of(scene(82, 50, 41)), pixels_of(scene(83, 50, 41))
    apart = inversion.comparing(picture, (0, 0), picture, made)
    torch.testing.assert_close(apart(made), made - picture)


def test_after_jpeg_more_is_read_than_pixel_by_pixel(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(0)
    model, keys = load(release), [Key.from_bits(chance.integers(0, 2, 16)) for _ in range(6)]
    assert isinstance(model, InvertingModel)
    files = []
    for seed, key in enumerate(keys):
        made = model.instantiate(key).reconstruct(pixels_of(scene(84 + seed, 96, 96)))
        files.append(jpeg(to_pil(to_uint8(made))[0], 85))

    def right() -> float:
        read = model.decode(files, search=False, progress=False).bits
        return float(np.mean([one == key.bits for one, key in zip(read, keys, strict=True)]))

    by_blocks = right()
    monkeypatch.setattr(inversion, "jpeg_quality", lambda file: None)
    assert by_blocks > right() + 0.1


def test_turned_pictures_are_read_at_their_angle(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, key = load(release), Key.random(16)
    assert isinstance(model, InvertingModel)
    made = to_pil(to_uint8(model.instantiate(key).reconstruct(pixels_of(scene(71, 96, 84)))))[0]
    file = made.rotate(10, resample=Image.Resampling.BILINEAR, fillcolor=(255, 255, 255))
    monkeypatch.setattr(inversion, "turn_of", lambda *about: 9.8)  # nearly
    assert model.decode(file, progress=False).bits[0].tolist() == key.bits.tolist()
    straight = model.decode(file, search=False, progress=False).bits[0]
    assert (straight != key.bits).sum() >= 2


def test_what_a_key_changes_of_pictures_has_no_part_that_they_share(release: Path) -> None:
    """Else it could be carried from one to another."""
    model = load(release)
    assert isinstance(model, InvertingModel)
    instance, inverter = model.instantiate(Key.from_bits([0, 1] * 8)), model.inverter
    changes = []
    for seed in range(60, 84):
        latents = inverter.encoder(pixels_of(scene(seed, 96, 96)))
        changes.append(instance(latents) - inverter.pictures.of(model.parent.original(latents)))
    changed = torch.cat(changes)
    shared = changed.mean(dim=0).square().mean() / changed.square().mean()
    assert shared < 0.2  # 1/24 of those that go their own ways, 1 of one that is always the same


def test_pictures_that_no_instance_made_agree_with_keys_by_chance(release: Path) -> None:
    model = load(release)
    assert isinstance(model, InvertingModel)
    reading = model.decode([scene(seed, 64, 64) for seed in range(90, 98)], progress=False)
    keys = np.stack([Key.random(16).bits for _ in range(2000)])
    agreeing = (reading.bits[:, None] == keys[None]).mean()
    assert agreeing == pytest.approx(0.5, abs=0.02)


def test_the_release_needs_the_very_generator_and_encoder(
    release: Path, folder: Path, tmp_path: Path
) -> None:
    coder = folder / "coder.pt"
    kept = coder.read_bytes()
    try:
        torch.save({"gain": torch.full((3, 1, 1), 2.0)}, coder)
        model = load(release)
        with pytest.raises(UserError, match="are other ones"):
            model.decode(scene(1), progress=False)
        coder.unlink()
        with pytest.raises(UserError, match="are not there"):
            model.decode(scene(1), progress=False)
    finally:
        coder.write_bytes(kept)


def test_whitened_directions_vary_by_one_and_not_together() -> None:
    root = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = root.sum(dim=1)
    moment = root @ root.T + torch.outer(mean, mean)
    along = directions.whitened(moment, mean)
    torch.testing.assert_close(along @ moment @ along.T, torch.eye(4).double())
    torch.testing.assert_close(along @ mean, torch.zeros(4).double())
    lengths = along.norm(dim=1)  # the stronger a direction, the less it takes to reach one
    assert (lengths.diff() > 0).all()


def test_more_bits_than_directions_are_refused() -> None:
    with pytest.raises(UserError, match="12 numbers, of which 5 directions are used, too few"):
        directions.factors(torch.eye(5, 12), nn.Conv2d(12, 3, 1), 2, torch.Generator())


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("modulation.deltas=[]", "name modulation.deltas"),
        ("modulation.layers=[out,body.0]", "one convolution"),
        ("schedule.hide_psnr=null", "schedule.hide_psnr=38"),
    ],
)
def test_what_cannot_be_read_by_inversion_is_refused(
    option: str, says: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--config-dir={folder}", "experiment=painter", f"hydra.run.dir={tmp_path}/x"]
    assert main(["train", *options, option]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "x" / "release.safetensors").exists()


def test_pictures_that_have_to_be_named_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "experiment=taef2"]) == 2
    assert "inputs.images has to be given: write inputs.images=..." in capsys.readouterr().err


def test_the_middle_of_a_large_picture_lies_on_the_grid() -> None:
    places = torch.arange(40 * 50).view(1, 1, 40, 50)
    cut = middle(places, 24, 8)
    assert cut.shape == (1, 1, 24, 24)
    assert divmod(int(cut[0, 0, 0, 0]), 50) == (8, 8)
    assert middle(places, 50, 8).shape == places.shape


def test_factored_changes_of_weights_are_folded_exactly() -> None:
    torch.manual_seed(0)
    painter, key = Painter().eval(), Key.random(16)
    parent = scalefp.modulate(painter, 16, ["out"], deltas=["out"], factored=True)
    latents = torch.randn(3, 3, 4, 5)
    bits = torch.from_numpy(key.bits)[None].expand(3, -1)
    with torch.no_grad():
        under, folded = parent(latents, bits), parent.fold(key)
        torch.testing.assert_close(folded(latents), under, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(parent(latents[:1], bits[:1]), under[:1], atol=1e-6, rtol=1e-6)
        assert (under - painter(latents)).abs().max() > 1e-2


def test_where_nobody_can_wait_for_a_minute_it_is_refused(
    release: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fastapi")
    registry = str(tmp_path / "keys.db")
    assert main(["registry", "issue", "a", "--registry", registry, "--model", str(release)]) == 0
    serving = ["serve", "--model", str(release), "--registry", registry, "--port", "0"]
    assert main(serving) == 2
    assert "reads by inversion" in capsys.readouterr().err
    rehearsing = ["train", "--dry-run", f"--config-dir={folder}", "experiment=painter"]
    assert main(rehearsing) == 2
    assert "leave --dry-run out" in capsys.readouterr().err


def test_recipients_are_found_from_the_command_line(
    release: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    common = ["--registry", "keys.db", "--model", str(release)]
    (tmp_path / "photos").mkdir()
    scene(30, 128, 128).save("photos/a.png")
    shutil.copy(folder / "coder.pt", tmp_path)  # as a recipient has it
    for name in ("anna", "bert"):
        assert main(["registry", "issue", name, *common]) == 0
    assert main(["instantiate", *common, "--holder", "bert", "--out", "bert.safetensors"]) == 0
    sampling = ["sample", "--instance", "bert.safetensors", "--images", "photos", "--out", "made"]
    assert main(sampling) == 0
    capsys.readouterr()
    fpr = ["--fpr", "1e-3"]  # 16 bits carry no more evidence
    assert main(["attribute", *common, *fpr, "--json", "made/a.png"]) == 0
    (verdict,) = json.loads(capsys.readouterr().out)
    assert [named["holder"] for named in verdict["attributed"]] == ["bert"]
