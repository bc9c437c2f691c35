"""``scalefp serve``: its options, its mistakes in one sentence, its start and its end."""

import json
import os
import signal
import socket
import stat
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import pytest
import uvicorn

import scalefp
from conftest import Run, assert_mistake
from scalefp.release.model import Model
from scalefp.service import connection
from scalefp.service.connection import Connection
from scalefp.service.serve import TOKEN_VARIABLE, listen, read_token
from service.conftest import TOKEN, Live, fill, start, tree

# Tokens.


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    return monkeypatch


def test_the_token_comes_from_a_file_or_the_environment(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert read_token(None) is None
    environment.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token(None) == TOKEN
    assert TOKEN_VARIABLE not in os.environ  # nothing that is started later inherits it
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}-in-a-file\n")
    environment.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token(str(file)) == f"{TOKEN}-in-a-file"


@pytest.mark.parametrize("text", ["", "short", "x" * 15, "two words in the token", "ü" * 20])
def test_weak_tokens_are_refused(
    environment: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(scalefp.UserError, match="at least 16") as error:
        read_token(str(file))
    assert not text or text not in str(error.value)
    environment.setenv(TOKEN_VARIABLE, text)
    with pytest.raises(scalefp.UserError, match=TOKEN_VARIABLE):
        read_token(None)


# Mistakes, before anything listens.


def test_mistakes(
    run: Run,
    registry: scalefp.Registry,
    release: Path,
    other_release: Path,
    tmp_path: Path,
    environment: pytest.MonkeyPatch,
) -> None:
    keys = ["--registry", tmp_path / "keys.db"]
    serve = ["serve", "--model", release, "--port", "0"]
    assert_mistake(run(*serve), "--registry")
    assert_mistake(run(*serve, "--registry", tmp_path / "none.db"), "no registry")
    assert_mistake(run("serve", "--model", "none", *keys), "no release")
    assert_mistake(run("serve", "--model", other_release, *keys), "another release")
    assert_mistake(run(*serve, *keys, "--port", "65536"), "--port")
    assert_mistake(run(*serve, *keys, "--workers", "0"), "--workers")
    assert_mistake(run(*serve, *keys, "--max-mib", "none"), "--max-mib")
    assert_mistake(run(*serve, *keys, "--host", "203.0.113.7"), "cannot listen on 203.0.113.7")
    assert_mistake(run(*serve, *keys, "--token", TOKEN), "--token")
    assert_mistake(run(*serve, *keys, "--token-file", tmp_path / "no"), "no")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_mistake(run(*serve, *keys, "--port", port), "cannot listen", str(port), "--port")
    environment.setitem(sys.modules, "uvicorn", None)
    assert_mistake(run(*serve, *keys), "uvicorn", "pip install 'scalefp[service]'")


@pytest.mark.parametrize("host", ["127.1", "127.0.0.2", "127.0.0.1"])
def test_every_address_of_this_machine_answers_to_its_names_alone(
    tmp_path: Path, release: Path, model: Model, host: str
) -> None:
    server = start(tmp_path, release, fill(tmp_path / "keys.db", model), "--host", host)
    try:
        assert "reachable from other machines" not in server.log.read_text()
        for name, status in ((host, 200), ("localhost", 200), ("evil.example", 400)):
            request = urllib.request.Request(f"{server.url}/health", headers={"Host": name})
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    assert answer.status == status
            except urllib.request.HTTPError as error:
                assert error.code == status and json.load(error)["error"]["code"] == "wrong_host"
    finally:
        server.process.kill()
        server.process.wait(timeout=30)


def test_an_address_of_the_sixth_version() -> None:
    try:
        with listen("::1", 0) as listener:
            assert listener.family == socket.AF_INET6
    except scalefp.UserError:
        pytest.skip("no IPv6 here")


# A real process.


def test_the_service_answers_under_the_url_it_prints(live: Live) -> None:
    with urllib.request.urlopen(f"{live.url}/health", timeout=60) as answer:
        assert json.load(answer)["registry"]["issued"] == 2
        assert "uvicorn" not in str(answer.headers).lower()
    assert live.url.startswith("http://127.0.0.1:")


def test_other_host_names_are_refused(live: Live) -> None:
    request = urllib.request.Request(f"{live.url}/health", headers={"Host": "evil.example"})
    with pytest.raises(urllib.request.HTTPError) as error:
        urllib.request.urlopen(request, timeout=60)
    assert error.value.code == 400 and json.load(error.value)["error"]["code"] == "wrong_host"


def test_the_token_cannot_be_seen_from_outside(live: Live) -> None:
    folder = Path(f"/proc/{live.process.pid}")
    if not folder.exists():
        pytest.skip("no /proc here")
    assert TOKEN not in (folder / "cmdline").read_text()
    children = (folder / "task" / str(live.process.pid) / "children").read_text().split()
    assert children  # the server that forks the readers, at least
    for child in children:
        assert TOKEN not in (Path("/proc") / child / "environ").read_text(errors="replace")
    assert TOKEN not in live.log.read_text()


def running(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_leaves_no_process(
    tmp_path: Path, release: Path, model: Model, how: signal.Signals
) -> None:
    server = start(tmp_path, release, fill(tmp_path / "keys.db", model))
    _, *children = tree(server.process.pid)
    assert len(children) >= 3  # two readers, and the server that forks them
    with socket.create_connection(server.address, timeout=60) as upload:
        upload.sendall(b"POST /attribute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n-")
        time.sleep(0.2)  # an upload that hangs; the service does not wait for it for long
        server.process.send_signal(how)
        server.process.wait(timeout=60)
    deadline = time.monotonic() + 60
    while any(map(running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, children))
    if how != signal.SIGKILL:
        assert "Traceback" not in server.log.read_text()
    mode = stat.S_IMODE((tmp_path / "keys.db").stat().st_mode)
    assert mode == 0o600


# Connections.


async def never(scope: object, receive: object, send: object) -> None:
    raise AssertionError("no request was whole")


@contextmanager
def listening() -> Iterator[tuple[str, int]]:
    """A server of nothing, in a thread."""
    listener = listen("127.0.0.1", 0)
    options = {"lifespan": "off", "log_config": None, "ws": "none", "http": Connection}
    server = uvicorn.Server(uvicorn.Config(never, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join()


def test_connections_without_a_request_are_dropped() -> None:
    with mock.patch.object(connection, "HEAD_SECONDS", 0.3), listening() as address:
        silent = socket.create_connection(address, timeout=30)
        trickling = socket.create_connection(address, timeout=30)
        trickling.sendall(b"POST /attribute HTTP/1.1\r\nHost: localhost\r\n")
        with silent, trickling:
            for connected in (silent, trickling):
                with suppress(ConnectionResetError):
                    assert connected.recv(1000) == b""
