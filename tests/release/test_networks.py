"""Networks as files: what they say of themselves, and what is refused."""

import dataclasses
import json
import stat

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scalefp.config import ModelConfig
from scalefp.errors import UserError
from scalefp.release.networks import (
    NETWORKS,
    Origin,
    holds_networks,
    network_file,
    read_origin,
    save_networks,
)

CONFIG = ModelConfig(resolution=16, n_bits=8, key_maps=False)
ORIGIN = Origin(CONFIG, 640, {"n_active": 8})
WEIGHTS = {name: {"w": torch.tensor([1.0, 1 / 3])} for name in NETWORKS}


def test_networks_come_back_as_half_precision_files_that_say_what_they_are(tmp_path):
    paths = save_networks(tmp_path / "new" / "folder", WEIGHTS, ORIGIN)
    assert holds_networks(tmp_path / "new" / "folder")
    for path in paths:
        assert read_origin(path) == ORIGIN
        assert stat.S_IMODE(path.stat().st_mode) == 0o600  # as secret as a release
        with safe_open(path, "pt") as opened:
            assert torch.equal(opened.get_tensor("w"), WEIGHTS["decoder"]["w"].half())


def test_a_folder_lacks_networks_until_all_are_there(tmp_path):
    save_networks(tmp_path, {name: WEIGHTS[name] for name in NETWORKS[:2]}, ORIGIN)
    assert not holds_networks(tmp_path)


def test_files_of_other_programs_are_read_by_sizes_and_images_alone(tmp_path):
    about = {"model": json.dumps(dataclasses.asdict(CONFIG)), "images": "7", "recipe": "{}"}
    save_file({"w": torch.ones(1)}, tmp_path / "x.safetensors", about)
    assert read_origin(tmp_path / "x.safetensors") == Origin(CONFIG, 7, None)


def test_files_that_say_too_little_or_nonsense_are_refused(tmp_path):
    sizes = dataclasses.asdict(CONFIG)
    path = network_file(tmp_path, "generator")
    for about, words in (
        (None, "not a whole network"),
        ({"model": json.dumps(sizes)}, "not a whole network"),
        ({"model": "{", "images": "1"}, "not a whole network"),
        ({"model": json.dumps(sizes), "images": "-1"}, "saw -1 images"),
        ({"model": json.dumps(sizes), "images": '"x"'}, "saw 'x' images"),
        ({"model": json.dumps(sizes | {"resolution": 17}), "images": "1"}, "resolution"),
        ({"model": "{}", "images": "1"}, "lacks"),
    ):
        save_file({"w": torch.ones(1)}, path, about)
        with pytest.raises(UserError, match=words):
            read_origin(path)
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(UserError, match="not a whole network"):
        read_origin(path)
    with pytest.raises(UserError, match="there is no network file"):
        read_origin(tmp_path / "missing")
