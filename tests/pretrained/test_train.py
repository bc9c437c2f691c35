"""A user's own generator is fingerprinted by one command, and used like any other."""

import io
import json
import re
from contextlib import nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import scalefp
from scalefp.bench import use, worker
from scalefp.bench.timing import interleaved
from scalefp.cli import main
from scalefp.data.images import to_float, to_uint8
from scalefp.errors import UserError
from scalefp.evaluation.method import as_measured
from scalefp.evaluation.quality import measure_hiding, reference_pixels
from scalefp.evaluation.samples import EvaluateConfig, Samples
from scalefp.key import Key
from scalefp.loading import load_generating, load_marker, load_model
from scalefp.pretrained.adopted import adopt
from scalefp.pretrained.release import PretrainedModel
from scalefp.pretrained.source import Pictures, find_class
from scalefp.studies.unseen import measure_unseen
from scalefp.training.compose import compose_training
from tests.pretrained import own_generator
from trainings import log_of

YAML = """# @package _global_
generator:
  _target_: tests.pretrained.own_generator.Generator
  weights: {weights}
inputs:
  _target_: tests.pretrained.own_generator.Latents
modulation:
  range: [0, 1]
model:
  resolution: 16
"""
# What makes it a short training, of few bits.
SHORT = [
    "model.n_bits=8", "model.decoder_base=192", "model.decoder_max=24", "modulation.keys_each=4",
    "modulation.layers=[out]", "modulation.deltas=[out]", "schedule.reading_psnr=14",
    "schedule.hide_psnr=16", "schedule.ramp_images=640", "schedule.decay_images=640",
    "loss.consistency=10", "optimizer.batch=32", "run.log_steps=5", "run.tensorboard=false",
    "optimizer.ema_images=200",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: weights of his generator, and ten lines of YAML."""
    folder = tmp_path_factory.mktemp("mine")
    torch.manual_seed(3)
    network = own_generator.Generator()
    with torch.no_grad():  # its pictures differ, as those of a trained one do
        for parameter in network.parameters():
            parameter.mul_(2)
    torch.save({"model": network.state_dict()}, folder / "nested.pt")
    torch.save(network.state_dict(), folder / "mine.pt")
    experiments = folder / "conf" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "mine.yaml").write_text(YAML.format(weights=folder / "mine.pt"))
    return folder


def command(folder: Path, name: str, *more: str) -> list[str]:
    run = f"hydra.run.dir={folder}/runs/{name}"
    conf = ["--config-dir", str(folder / "conf")]
    return ["train", *conf, "experiment=mine", f"name={name}", run, *SHORT, *more]


@pytest.fixture(scope="module")
def release(folder: Path) -> Path:
    assert main(command(folder, "first", "schedule.total_images=3200")) == 0
    return folder / "runs" / "first" / "release.safetensors"


def test_the_end_of_a_training_says_how_near_its_pictures_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(folder, "end", "schedule.total_images=32")) == 0
    assert "the original's pictures kept to" in capsys.readouterr().err


def run(*arguments: object) -> Any:
    """What a command prints as JSON."""
    shown = io.StringIO()
    with redirect_stdout(shown):
        code = main([*map(str, arguments), "--json"])
    assert code == 0, shown.getvalue()
    return json.loads(shown.getvalue())


def test_a_users_generator_is_fingerprinted_by_one_command_and_used_like_any_other(
    folder: Path, release: Path
) -> None:
    lines = log_of(release.parent)
    assert lines[-1]["bit_accuracy"] > 0.9
    assert lines[-1]["psnr"] > 14
    assert {"bits", "consistency", "visible"} <= lines[-1].keys()
    assert sorted(path.name for path in (release.parent / "grids").iterdir())

    keys, registry = folder / "a.safetensors", folder / "keys.db"
    run("registry", "issue", "a", "--registry", registry, "--model", release)
    run("instantiate", "--model", release, "--registry", registry, "--holder", "a", "--out", keys)
    # What the recipient gets is his architecture's state dict.
    original = torch.load(folder / "mine.pt", weights_only=True)
    state = load_file(keys)
    assert list(state) and {n: (t.shape, t.dtype) for n, t in state.items()} == {
        n: (t.shape, t.dtype) for n, t in original.items()
    }
    network = own_generator.Generator().eval()
    network.load_state_dict(state)
    run("sample", "--instance", keys, "--out", folder / "images", "--num", 40, "--seed", 5)
    instance = scalefp.load_instance(keys)
    z = own_generator.Latents().draw(1, torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(instance.sample(1, seed=5), network(z) * 2 - 1)

    read = run("decode", "--model", release, folder / "images")
    key = scalefp.Registry(registry).find("a")
    right = [(Key.from_hex(one["key"], 8).bits == key.bits).mean() for one in read]
    assert np.mean(right) > 0.9
    named = run(
        "attribute", "--model", release, "--registry", registry, folder / "images",
        "--same-source", "--fpr", "0.01",
    )  # fmt: skip
    assert [one["holder"] for one in named[0]["attributed"]] == ["a"]


def test_the_release_holds_no_weight_of_the_generator_and_finds_them_by_their_digest(
    folder: Path, release: Path, tmp_path: Path
) -> None:
    names = load_file(release).keys()
    assert all(name.startswith(("keyed.", "decoder.")) for name in names)
    model = scalefp.load(release)
    assert isinstance(model, PretrainedModel)
    key = Key.random(8)
    instance = model.instantiate(key)
    z = own_generator.Latents().draw(4, torch.Generator().manual_seed(1))
    bits = torch.from_numpy(key.bits)[None].expand(4, -1)
    with torch.no_grad():
        parent = model.parent(z, bits) * 2 - 1
        torch.testing.assert_close(instance(z), parent, atol=1e-5, rtol=1e-5)

    weights = folder / "mine.pt"
    kept = weights.read_bytes()
    try:
        torch.save(own_generator.Generator().state_dict(), weights)
        again = load_generating(release)
        assert again.decode(to_uint8(instance.sample(2))).logits.shape == (2, 8)  # needs none
        with pytest.raises(UserError, match="are other ones"):
            again.instantiate(key)
        weights.unlink()
        with pytest.raises(UserError, match="are not there"):
            load_generating(release).instantiate(key)
    finally:
        weights.write_bytes(kept)


def test_a_stopped_training_goes_on_as_if_it_had_not_been(folder: Path) -> None:
    whole = command(folder, "whole", "schedule.total_images=320", "schedule.decay_images=1")
    assert main(whole) == 0
    part = command(folder, "part", "schedule.total_images=160", "schedule.decay_images=1")
    assert main(part) == 0
    assert main([*part, "schedule.total_images=320"]) == 0
    runs = folder / "runs"
    assert log_of(runs / "whole")[-1] == log_of(runs / "part")[-1]
    one, other = (load_file(runs / n / "release.safetensors") for n in ("whole", "part"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_the_commands_for_other_releases_say(release: Path) -> None:
    with pytest.raises(UserError, match="a generator that others trained"):
        load_model(release)
    with pytest.raises(UserError, match="marks no images"):
        load_marker(release)


def test_its_instances_are_written_in_half_precision_and_for_other_runtimes(
    release: Path, tmp_path: Path
) -> None:
    named = ["instantiate", "--model", release, "--key", "c3"]
    run(*named, "--out", tmp_path / "whole.safetensors")
    run(*named, "--out", tmp_path / "half.safetensors", "--half")
    half, whole = (scalefp.load_instance(tmp_path / f"{n}.safetensors") for n in ("half", "whole"))
    torch.testing.assert_close(half.sample(2), whole.sample(2), atol=5e-3, rtol=0)
    run(*named, "--out", tmp_path / "a.pt2")
    z = own_generator.Latents().draw(3, torch.Generator().manual_seed(1))
    exported = torch.export.load(tmp_path / "a.pt2").module()
    torch.testing.assert_close(exported(z), whole(z), atol=1e-5, rtol=0)
    run(*named, "--out", tmp_path / "whole.safetensors", "--half", "--force")
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("whole", "half")]
    assert sizes[0] == sizes[1]


def test_a_scan_says_of_each_image_what_attribute_says(release: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    keys, of_release = (
        tmp_path / "keys.db",
        ["--model", release, "--registry", tmp_path / "keys.db"],
    )
    run("registry", "issue", "a", "--registry", keys, "--model", release)
    run("instantiate", *of_release, "--holder", "a", "--out", tmp_path / "a.safetensors")
    images = tmp_path / "images"
    run("sample", "--instance", tmp_path / "a.safetensors", "--out", images, "--num", 12)
    said = run("attribute", *of_release, "--fpr", "0.05", images)
    run("scan", images, *of_release, "--fpr", "0.05", "--out", tmp_path / "scan")
    table = parquet.read_table(tmp_path / "scan" / "shards")
    rows = {row["path"]: row["holder"] for row in table.to_pylist()}
    for one in said:
        named = [found["holder"] for found in one["attributed"]]
        assert [rows[one["images"][0]]] == (named or [None])
    assert list(rows.values()).count("a") >= 6


def test_its_speed_is_measured_beside_its_parents(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = partial(interleaved, repeats=2, warm_up=0)
    monkeypatch.setattr(use, "interleaved", lambda tasks, *_, **__: few(tasks))
    monkeypatch.setattr(use, "matrix_rate", lambda _: 1e9)
    monkeypatch.setattr(use, "MANY", 2)
    monkeypatch.setattr(use, "BATCHES", ((4, 2),))
    monkeypatch.setattr(use, "onnx_session", lambda *_: None)
    rows = use.measure_instantiate(str(release), 1, tmp_path)
    rows += use.measure_sample(str(release), 1, tmp_path)
    rows += use.measure_decode(str(release), 1, tmp_path)
    assert all(row.own.median > 0 for row in rows)
    assert not [row for row in rows if row.target and not row.own.what.startswith("decode")]
    beside = {row.own.what: row.beside for row in rows}
    assert beside["instance, batch 4"].what == "its parent"
    for name in ("nothing", "instantiate", "sample", "parent", "decode"):
        worker.ALONE[name](str(release))()


def test_it_is_measured_like_a_release_of_this_project(release: Path, tmp_path: Path) -> None:
    assert (
        main(
            [
                "evaluate", f"checkpoint={release}", f"out={tmp_path / 'results'}",
                "measure=quick", "measure.keys=2", "measure.images_per_key=4",
            ]
        )
        == 0
    )  # fmt: skip
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results["reading"][0]["mean"] > 0.8
    # Its latents are drawn, so recipients can look for those of a picture.
    assert results["lifting"]["redrawn_psnr"] > 5
    # Its pictures are held against those of the generator that was adopted, not against a data set.
    model = load_generating(release)
    assert isinstance(model, PretrainedModel)
    config = EvaluateConfig(keys=2, images_per_key=4, feature_images=8)
    samples = Samples(as_measured(model), config)
    hiding = measure_hiding(samples)
    assert hiding["key_and_original"] == results["hiding"]["key_and_original"]
    assert samples.unkeyed is not None
    difference = to_float(samples.images) - to_float(samples.unkeyed)
    psnr = -10 * torch.log10(difference.square().mean(dim=(2, 3, 4)) / 4)
    assert hiding["key_and_original"]["psnr"] == pytest.approx(float(psnr.mean()))
    against, pixels = reference_pixels(samples, config, 6)
    assert against == "the original's" and pixels.shape == (6, 3, 16, 16)
    said = (tmp_path / "results" / "results.md").read_text()
    assert ("the original generator's pictures" in said) == (results["features"] is not None)


def test_a_study_reads_unseen_keys_of_it(release: Path) -> None:
    figures = measure_unseen(release, 0)
    assert figures["unseen_bit_accuracy"] > 0.8
    assert 10 < figures["unseen_psnr"] < 100


OWN = "tests.pretrained.own_generator."


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"generator._target_": OWN + "NoLayers"}, "has no layer to modulate"),
        ({"generator._target_": OWN + "Generatr"}, "has no Generatr"),
        ({"generator._target_": "no.such.module.G"}, "cannot be imported"),
        ({"generator._target_": "torch.zeros"}, "is no class"),
        ({"generator._target_": OWN + "Latents"}, "is no Module"),
        ({"+generator.width": 8}, "of another shape: body"),
        ({"+generator.size": 8}, "Generator\\(size=8\\) failed"),
        ({"generator.weights": "nested.pt"}, "weights_key=model"),
        ({"generator.weights": "nested.pt", "+generator.weights_key": "ema"}, "no 'ema'"),
        ({"generator.weights": "absent.pt"}, "absent.pt"),
        ({"generator.weights": "text.pt"}, r"text.pt is no file of weights .* safetensors$"),
        ({"generator.weights": "nothing:absent.pt"}, "nothing is not installed"),
        ({"generator.weights": "other.pt"}, "missing: body.2.weight.*unexpected: stray"),
        ({"generator._target_": OWN + "Noisy"}, "other images of the same inputs"),
        ({"generator._target_": OWN + "Grey"}, r"images \[b, 3, R, R\], not \[16, 1, 16, 16\]"),
        ({"generator._target_": OWN + "Bright"}, r"modulation.range=\[0,1\], but .* spans"),
        ({"modulation.range": [-1, 1]}, r"looks like \[0,1\]"),
        ({"modulation.range": [0, 255]}, r"modulation.range must be one of \[-1, 1\], \[0, 1\]"),
        ({"inputs._target_": OWN + "Wide"}, "does not take what inputs draws"),
        ({"inputs._target_": OWN + "Generator"}, "has no draw"),
        ({"modulation.layers": ["outt"]}, "nearest names are out"),
        ({"modulation.method": "decode"}, "has no decode"),
        ({"model.resolution": 32}, "images of 16x16"),
        ({"model.decoder_base": 64}, "raise model.decoder_base"),
        ({"modulation.keys_each": 3}, "a multiple of"),
        ({"loss.lpips": 0.1}, "belong together"),
        ({"loss.lpips": 0.1, "loss.lpips_backbone": "absent.pth"}, "no LPIPS backbone at absent"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_written(
    folder: Path, options: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"stray": torch.zeros(1)} | {
        n: t for n, t in own_generator.Generator().state_dict().items() if not n.startswith("body")
    }, folder / "other.pt")  # fmt: skip
    (folder / "text.pt").write_text("no weights")
    if options.get("generator._target_") == OWN + "NoLayers":
        torch.save(own_generator.NoLayers().state_dict(), folder / "no_layers.pt")
        options = options | {"generator.weights": "no_layers.pt"}
    changes = []
    for name, value in options.items():
        if name == "generator.weights" and ":" not in str(value):
            value = folder / str(value)
        changes.append(f"{name}={json.dumps(value) if isinstance(value, list) else value}")
    changes = [change.replace(" ", "") for change in changes]
    assert main(command(folder, "never", *changes)) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert re.search(words, " ".join(said.split())), said
    assert not (folder / "runs" / "never").exists()


def test_a_module_that_fails_when_it_is_imported_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_somebody.py").write_text("raise RuntimeError('no such operator')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="of_somebody.G cannot be imported: no such operator"):
        find_class("of_somebody.G", "generator")


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ([0.0, 1.0] * 50, False),
        ([-0.12, 1.15] + [0.0, 1.0] * 49, False),  # as TAEF2's decoder does at edges
        ([-0.12, 1.15] * 5 + [0.0, 1.0] * 45, True),
        ([-0.6] + [0.5] * 99, True),
        ([-0.9] + [0.5] * 99, True),  # the darkest of [-1, 1]
    ],
)
def test_a_decoder_may_overshoot_a_little_at_a_few_places(
    values: list[float], refused: bool
) -> None:
    pictures = Pictures(0, 1)
    images = pictures.of(torch.tensor(values * 3).view(1, 3, 10, 10))
    with pytest.raises(UserError, match="spans") if refused else nullcontext():
        pictures.check(images, 10)


def test_layers_that_make_no_image_are_left_out(folder: Path) -> None:
    """As the encoder of an autoencoder whose decoder is used."""
    config = compose_training(
        [
            "+generator._target_=tests.pretrained.test_train.Autoencoder",
            f"+generator.weights={folder}/autoencoder.pt",
            "+inputs._target_=tests.pretrained.own_generator.Latents",
            "modulation.method=decode", "modulation.range=[0,1]", "model.resolution=16",
            "modulation.fitted_start=false",
        ]
    )  # fmt: skip
    network = Autoencoder()
    torch.save(network.state_dict(), folder / "autoencoder.pt")
    assert "encoder" not in adopt(config).layers
    config.modulation.layers = ["encoder"]
    with pytest.raises(UserError, match="without 'encoder'"):
        adopt(config)


class Autoencoder(own_generator.Generator):
    """Of which only the decoder makes images."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Conv2d(3, 6, 16)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(z)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encoder(x).flatten(1))


@pytest.mark.parametrize("term", ["gradients", "lpips", "weight_step"])
def test_terms_for_a_generator_of_others_are_refused_without_one(term: str) -> None:
    config = compose_training([f"loss.{term}=1"])
    with pytest.raises(UserError, match=f"loss.{term} is for a generator that others trained"):
        config.check()


def test_how_keys_are_attached_is_refused_without_such_a_generator() -> None:
    config = compose_training(["modulation.reader=inversion"])
    with pytest.raises(UserError, match="modulation is for a generator that others trained"):
        config.check()


def test_generator_and_inputs_belong_together() -> None:
    config = compose_training(["+inputs._target_=tests.pretrained.own_generator.Latents"])
    with pytest.raises(UserError, match="belong together"):
        config.check()


def test_a_dry_run_is_of_the_generator_that_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(folder, "dry"), "--dry-run"]) == 0
    assert "parameters: parent" in capsys.readouterr().out
    assert not (folder / "runs" / "dry").exists()
