"""``scalefp release`` and half precision, as a user types them."""

import json
from pathlib import Path

import torch

from conftest import assert_mistake
from scalefp.loading import load_model
from scalefp.release.container import load_tensors
from scalefp.release.instance import load_instance

KEY = "00112233445566778899aabbccddeeff"


def test_a_release_of_a_release_holds_half_the_numbers_and_reads_the_same(run, release, images):
    made = run("release", "make", release, "--out", "half.safetensors", "--json")
    assert made.code == 0
    again, model = load_model("half.safetensors"), load_model(release)
    assert made.json == {"out": "half.safetensors", "model_digest": again.digest}
    assert again.config == model.config and again.training == model.training
    readings = [each.decode(images, search=False).logits for each in (model, again)]
    assert abs(readings[0] - readings[1]).max() < 1e-6  # it was in half precision before


def test_a_stronger_key_is_noted_and_asked_for_in_range(run, release):
    options = ["release", "make", release, "--out", "a.safetensors", "--key-strength"]
    assert run(*options, 1.5).code == 0
    assert load_model("a.safetensors").training["key_strength"] == 1.5
    again = ["release", "make", "a.safetensors", "--out", "b.safetensors", "--key-strength"]
    assert run(*again, 2).code == 0
    assert load_model("b.safetensors").training["key_strength"] == 3
    for wrong in ("0", "11", "nan", "strong"):
        assert_mistake(run(*options, wrong), "a factor from 0.1 to 10 is needed")


def test_releases_are_made_of_what_they_can_be_made_of(run, release, marker_file, tmp_path):
    out = ["--out", "a.safetensors"]
    assert_mistake(run("release", "make", tmp_path, *out), "holds no networks", "release networks")
    assert_mistake(run("release", "make", marker_file, *out), "is a marker")
    assert_mistake(run("release", "make", "nothing", *out), "no release 'nothing'")
    assert_mistake(
        run("release", "networks", "nothing", "--out", "n"), "there is no training checkpoint file"
    )
    assert run("release", "make", release, *out).code == 0
    assert_mistake(run("release", "make", release, *out), "exists already", "--force")
    assert run("release", "make", release, *out, "--force").code == 0


def test_an_instance_in_half_precision_makes_the_same_images_in_half_the_space(run, release):
    files = {}
    for name, options in (("whole", []), ("half", ["--half"])):
        files[name] = f"{name}.safetensors"
        arguments = ["--model", release, "--key", KEY, "--out", files[name], *options]
        assert run("instantiate", *arguments).code == 0
    images = {name: load_instance(file).sample(4) for name, file in files.items()}
    sizes = {name: sum(t.nbytes for t in _stored(file).values()) for name, file in files.items()}
    assert sizes["half"] * 2 == sizes["whole"]
    assert (images["half"] - images["whole"]).abs().max() < 0.01
    assert not torch.equal(images["half"], images["whole"])
    assert run("sample", "--instance", files["half"], "--out", "images", "--num", 2).code == 0


def _stored(file):
    return load_tensors(file, "instance")[0]


def test_half_precision_is_for_safetensors(run, release):
    arguments = ["--model", release, "--key", KEY, "--out", "a.pt2", "--half"]
    assert_mistake(run("instantiate", *arguments), "--half is for --format safetensors")


TINY = [
    "model=tiny", "model.resolution=16", "optimizer.batch=8", "run.tensorboard=false",
    "run.precision=fp32", "run.log_steps=1", "loss.augment=0.5", "loss.visibility=0.5",
]  # fmt: skip


def test_a_training_goes_on_elsewhere_from_its_networks(run, images):
    options = [*TINY, f"data.source={images[0].parent}"]
    assert run("train", *options, "name=first", "schedule.total_images=16").code == 0
    written = run("release", "networks", "runs/first", "--out", "networks", "--json")
    names = ("generator", "decoder", "discriminator")
    assert written.json == {"out": [f"networks/{name}.safetensors" for name in names]}
    again = ["release", "networks", "runs/first", "--out", "networks"]
    assert_mistake(run(*again), "exists already", "--force")
    assert run(*again, "--force").code == 0

    more = ["name=second", "start_from=networks", "schedule.total_images=32"]
    assert run("train", *options, *more).code == 0
    lines = Path("runs/second/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["images"] for line in lines] == [24, 32]
    wrong = ["name=third", "start_from=networks", "model.channel_max=32"]
    assert_mistake(run("train", *options, *wrong), "model.channel_max=64, not 32")

    assert run("release", "make", "networks", "--out", "r.safetensors").code == 0
    made, trained = load_model("r.safetensors"), load_model("runs/first/release.safetensors")
    assert made.training["images"] == 16
    assert made.training["reached"] == trained.training["reached"]
    for part in ("generator", "decoder"):
        expected = getattr(trained, part).state_dict()
        for name, tensor in getattr(made, part).state_dict().items():
            assert torch.equal(tensor, expected[name]), name
