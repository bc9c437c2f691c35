"""What the tests of the service share: a registry that knows one image's maker, and a client.

Nothing of the tiny random release can be read, so alice is issued the very key that its decoder
reads from ``UPLOADS[0]``; bob's key is random, and the other images are nobody's.
"""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import scalefp
from scalefp.key import Key
from scalefp.release.model import Model
from scalefp.service.app import create_app
from scalefp.service.desk import Desk
from scalefp.service.limits import Limits
from scalefp.service.readers import Upload

TOKEN = "a token of the tests".replace(" ", "-")
START_SECONDS = 120  # of a process that loads torch, on a busy machine


def png(seed: int, size: tuple[int, int] = (20, 16)) -> bytes:
    """A PNG file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), "PNG")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


UPLOADS = [Upload(f"{name}.png", png(seed)) for seed, name in enumerate(("hers", "a", "b"))]


def form(*uploads: Upload) -> list[tuple[str, tuple[str, bytes]]]:
    """The ``files`` of a client's request."""
    return [("images", (upload.name, upload.data)) for upload in uploads]


def issue(registry: scalefp.Registry, holder: str, model: Model, key: Key) -> None:
    """Issue a key that is not random."""
    with mock.patch.object(Key, "random", lambda n_bits: key):
        registry.issue(holder, model)


def fill(path: Path, model: Model) -> scalefp.Registry:
    """The registry of alice and bob."""
    registry = scalefp.Registry(path)
    read = model.decode([Image.open(io.BytesIO(UPLOADS[0].data))]).key
    issue(registry, "alice", model, read)
    registry.issue("bob", model)
    return registry


@pytest.fixture
def registry(tmp_path: Path, model: Model) -> scalefp.Registry:
    return fill(tmp_path / "keys.db", model)


@pytest.fixture(scope="session")
def shared_desk(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Iterator[Desk]:
    """Its processes take seconds to start."""
    path = tmp_path_factory.mktemp("registry") / "keys.db"
    desk = Desk(model, fill(path, model), Limits(pixels=1_000_000), workers=1)
    yield desk
    desk.close()


@pytest.fixture
def desk(shared_desk: Desk, registry: scalefp.Registry) -> Iterator[Desk]:
    """With a registry of its own."""
    with mock.patch.object(shared_desk, "registry", registry):
        yield shared_desk


Connect = Callable[..., TestClient]


@pytest.fixture
def connect(desk: Desk) -> Connect:
    """Makes a client of an application with the given options."""

    def call(**options: object) -> TestClient:
        app = create_app(desk, **options)
        # Not as a context manager: the desk must outlive the application.
        return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)

    return call


@pytest.fixture
def client(connect: Connect) -> TestClient:
    """A client of a service that issues keys."""
    return connect(token=TOKEN)


# A real server in a process of its own.


class Live(NamedTuple):
    url: str
    process: subprocess.Popen[str]
    log: Path
    registry: scalefp.Registry

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    listing = ["ps", "-o", "pid=", "--ppid", str(pid)]
    children = subprocess.run(listing, capture_output=True, text=True).stdout.split()
    return [pid, *(one for child in children for one in tree(int(child)))]


def start(folder: Path, release: Path, registry: scalefp.Registry, *options: str) -> Live:
    """``scalefp serve`` on a free port."""
    log = folder / "serve.log"
    command = [sys.executable, "-m", "scalefp.cli", "serve", "--model", str(release), "--port", "0"]
    command += ["--registry", str(folder / "keys.db"), "--workers", "2", *options]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "SCALEFP_TOKEN": TOKEN},
        )
    assert process.stdout is not None
    url = process.stdout.readline().strip()  # empty if it has died
    assert url.startswith("http://"), log.read_text()
    return Live(url, process, log, registry)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, release: Path, model: Model) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    server = start(folder, release, fill(folder / "keys.db", model), "--max-seconds", "2")
    try:
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=30)
