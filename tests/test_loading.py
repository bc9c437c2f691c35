"""Releases by name, and which kind is taken where."""

import pytest

import scalefp
import scalefp.loading
from conftest import assert_mistake
from scalefp.artificial.marker import Marker
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.loading import load, load_marker, load_model
from scalefp.release.model import Model


def test_a_file_is_loaded_as_the_kind_that_it_is(release, marker_file):
    assert type(load(release)) is type(load_model(str(release))) is Model
    assert type(load(marker_file)) is type(load_marker(str(marker_file))) is Marker


def test_a_bundled_release_is_loaded_by_its_name(release, marker_file, monkeypatch, tmp_path):
    (tmp_path / "tiny.safetensors").write_bytes(release.read_bytes())
    (tmp_path / "pen.safetensors").write_bytes(marker_file.read_bytes())
    monkeypatch.setattr(scalefp.loading, "BUNDLED", tmp_path)
    assert load("tiny").digest == load_model("tiny").digest == load(release).digest
    assert load("pen").digest == load_marker("pen").digest == load(marker_file).digest
    for each in (load, load_model, load_marker):
        with pytest.raises(UserError, match=r"tinny.*\(pen, tiny\)"):
            each("tinny")


def test_the_other_kind_is_named_and_what_to_give(release, marker_file):
    with pytest.raises(UserError, match=r"marker\.safetensors is a marker.*scalefp train"):
        load_model(marker_file)
    with pytest.raises(UserError, match=r"random\.safetensors is the release.*artificial train"):
        load_marker(release)


@pytest.mark.parametrize("each", [load, load_model, load_marker])
def test_what_is_no_release_of_either_kind_is_refused(each, model, release, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(release.read_bytes()[:-7])
    with pytest.raises(UserError, match="file .*truncated"):
        each(file)
    model.instantiate(Key.random()).save(file)
    with pytest.raises(UserError, match="'instance'"):
        each(file)
    with pytest.raises(UserError, match="no release"):
        each(tmp_path)


def test_the_public_names_are_these():
    assert scalefp.load is load
    assert scalefp.Model is Model
    assert scalefp.Marker is Marker


def test_either_kind_reads_and_is_attributed(run, marker_file, images):
    registry = ["--registry", "keys.db", "--model", marker_file]
    assert run("registry", "issue", "recipient-a", *registry).code == 0
    assert len(run("decode", "--model", marker_file, *images, "--json").json) == 3
    nobody = run("attribute", *registry, *images, "--json")
    assert (nobody.code, nobody.json[0]["issued"]) == (1, 1)


def test_what_needs_a_generator_refuses_a_marker(run, marker_file):
    arguments = ["--model", marker_file, "--key", "00" * 16, "--out", "a"]
    assert_mistake(run("instantiate", *arguments), "is a marker")
    assert_mistake(run("evaluate", f"checkpoint={marker_file}"), "is a marker")
