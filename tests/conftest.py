"""Set-up of all tests, and what they share: a tiny random release, and the command line."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: threads that share a busy core spin

import json
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from scalefp.artificial.config import MarkConfig
from scalefp.artificial.encoder import Encoder
from scalefp.artificial.marker import Marker, save_marker
from scalefp.cli import main
from scalefp.config import ModelConfig
from scalefp.loading import load_marker, load_model
from scalefp.networks.decoder import Decoder
from scalefp.networks.generator import Generator
from scalefp.release.model import Model, save_release

HOLDERS = ("recipient-a", "recipient-b")

# A shell starts what runs in the background with Ctrl-C ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Whatever ran before, torch draws the same numbers in a test."""
    torch.manual_seed(0)


def write_release(path: Path, seed: int = 0) -> Path:
    """A 16x16, 128-bit release with random weights; its pictures and readings mean nothing."""
    torch.manual_seed(seed)
    config = ModelConfig(
        resolution=16,
        latent_dim=8,
        channel_base=64,
        channel_max=8,
        embedding_width=16,
        decoder_resolution=16,
        decoder_base=64,
        decoder_max=8,
    )
    save_release(path, config, Generator(config), Decoder(config), training={"images": 0})
    return path


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the tiny release."""
    return write_release(tmp_path_factory.mktemp("release") / "random.safetensors")


@pytest.fixture(scope="session")
def other_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of another release of the same sizes."""
    return write_release(tmp_path_factory.mktemp("release") / "other.safetensors", seed=1)


@pytest.fixture(scope="session")
def model(release: Path) -> Model:
    """The tiny release in memory."""
    return load_model(release)


@pytest.fixture(scope="session")
def marker_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a 32x32, 128-bit marker with random weights; its readings mean nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("marker") / "marker.safetensors"
    config = MarkConfig(resolution=32, encoder_width=4, decoder_resolution=16, decoder_base=64)
    save_marker(path, config, Encoder(config), Decoder(config), training={"images": 0})
    return path


@pytest.fixture(scope="session")
def marker(marker_file: Path) -> Marker:
    """The tiny marker in memory."""
    return load_marker(marker_file)


# The command line.


class Result(NamedTuple):
    """What a command returned and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``scalefp ARGUMENTS`` in an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return call


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (20, 16)) -> Path:
    """A PNG file of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three image files of noise."""
    return [write_image(tmp_path / "images" / f"{i}.png", seed=i) for i in range(3)]


@pytest.fixture
def registry(tmp_path: Path, run: Run, release: Path) -> Path:
    """A registry in which both holders have random keys."""
    path = tmp_path / "keys.db"
    for holder in HOLDERS:
        issued = run("registry", "issue", holder, "--registry", path, "--model", release)
        assert issued.code == 0
    return path


# Registries: an SQLite file, and a schema of its own on the server that .ci/with-postgresql starts.


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """URL of a database that no other process of the tests uses: a writer locks a whole one, and
    one test closes all of its connections."""
    server = os.environ.get("SCALEFP_POSTGRESQL")
    if server is None:
        pytest.skip("no PostgreSQL server: run the tests by .ci/with-postgresql")
    psycopg = pytest.importorskip("psycopg")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgresql(database: str) -> Iterator[str]:
    """URL of an empty schema."""
    psycopg = pytest.importorskip("psycopg")
    schema = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    yield f"{database}?options=-csearch_path%3D{schema}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Path or URL of a registry that does not exist yet, on both databases."""
    if request.param == "sqlite":
        return str(tmp_path / "place.db")
    url: str = request.getfixturevalue("postgresql")
    return url


def assert_mistake(result: Result, *words: str) -> None:
    """Exit code 2, nothing on standard output, one sentence that holds the words."""
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("scalefp: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err
