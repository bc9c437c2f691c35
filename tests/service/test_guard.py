"""The guard alone, around an application that only counts what it receives."""

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from scalefp.service.guard import Guard, host_name
from scalefp.service.limits import Limits, Refused

LIMITS = Limits(upload_bytes=100, other_bytes=20, buffered_bytes=150, upload_seconds=0.2)


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of the body."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


def scope(*, host: str = "localhost", length: int | None = None, path: str = "/attribute") -> Scope:
    headers = [(b"host", host.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http", "method": "POST", "path": path, "headers": headers}


class Client:
    """Sends chunks, then nothing more, and keeps what it is answered."""

    def __init__(self, chunks: Iterable[bytes], *, ends: bool = True) -> None:
        self.chunks, self.ends = list(chunks), ends
        self.asked = 0
        self.answers: list[Message] = []

    async def receive(self) -> Message:
        self.asked += 1
        if not self.chunks:
            await asyncio.Event().wait()
        body = self.chunks.pop(0)
        more = bool(self.chunks) or not self.ends
        return {"type": "http.request", "body": body, "more_body": more}

    async def send(self, message: Message) -> None:
        self.answers.append(message)

    @property
    def status(self) -> int:
        return int(self.answers[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.answers[0]["headers"]}

    @property
    def code(self) -> str:
        return str(json.loads(self.answers[1]["body"])["error"]["code"])


def ask(guard: Guard, client: Client, **options: Any) -> Client:
    asyncio.run(guard(scope(**options), client.receive, client.send))
    return client


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8000", "localhost"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:8000", "[::1]"),
        ("[::1]", "[::1]"),
        ("evil.example:x", "evil.example:x"),
        ("", ""),
    ],
)
def test_host_names(header: str, name: str) -> None:
    assert host_name(header) == name


def test_only_known_host_names_are_answered() -> None:
    guard = Guard(count, LIMITS, {"localhost", "[::1]"})
    for host in ("localhost", "localhost:1234", "LOCALHOST", "[::1]:80"):
        assert ask(guard, Client([b""]), host=host).status == 200
    for host in ("", "evil.example", "localhost.evil.example", "127.0.0.2", "localhost:80:80"):
        refused = ask(guard, Client([b""]), host=host)
        assert (refused.status, refused.code, refused.asked) == (400, "wrong_host", 0)
    assert ask(Guard(count, LIMITS, None), Client([b""]), host="evil.example").status == 200


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        (None, True),  # curl, python
        ("http://localhost:8000", True),  # the service's own page
        ("https://verdicts.example", True),  # the same behind a proxy
        ("http://localhost:3000", False),  # another service of this machine
        ("http://127.0.0.1", False),
        ("https://evil.example", False),
        ("https://localhost:8000.evil.example", False),
        ("null", False),  # a file, or a page that hides where it is from
    ],
)
def test_pages_of_other_sites_may_not_ask(origin: str | None, passes: bool) -> None:
    guard = Guard(count, LIMITS, {"localhost", "127.0.0.1", "verdicts.example"})
    asked, client = scope(host="localhost:8000"), Client([b""])
    if origin is not None:
        asked["headers"].append((b"origin", origin.encode()))
    asyncio.run(guard(asked, client.receive, client.send))
    if passes:
        assert client.status == 200
    else:
        assert (client.status, client.code, client.asked) == (403, "foreign_origin", 0)


def test_a_body_of_the_very_limit_passes() -> None:
    guard = Guard(count, LIMITS, None)
    client = ask(guard, Client([b"x" * 60, b"x" * 40]), length=100)
    assert client.status == 200 and client.answers[1]["body"] == b"100"


def test_a_body_that_announces_too_much_is_not_even_asked_for() -> None:
    client = ask(Guard(count, LIMITS, None), Client([b"x"]), length=101)
    assert (client.status, client.code, client.asked) == (413, "too_large", 0)


def test_only_images_may_be_large() -> None:
    guard = Guard(count, LIMITS, None)
    for path in ("/keys", "/attribute/", "/", "/decode2"):
        assert ask(guard, Client([b"x" * 20]), path=path).status == 200
        assert ask(guard, Client([b"x" * 21]), path=path).status == 413
        assert ask(guard, Client([b"x"]), path=path, length=21).asked == 0


def test_a_body_that_understates_itself_is_stopped() -> None:
    guard = Guard(count, LIMITS, None)
    for length in (None, 10):
        client = ask(guard, Client([b"x" * 60] * 10), length=length)
        assert (client.status, client.code, client.asked) == (413, "too_large", 2)
    assert guard.buffered == 0


def test_a_slow_body_is_given_up_and_released() -> None:
    guard = Guard(count, LIMITS, None)
    client = ask(guard, Client([b"x" * 10], ends=False))
    assert (client.status, client.code) == (408, "upload_too_slow")
    assert guard.buffered == 0


def test_all_bodies_together_are_bounded() -> None:
    guard = Guard(count, LIMITS, None)
    slow, fast, later = Client([b"x" * 90], ends=False), Client([b"x" * 90]), Client([b"x" * 60])

    async def together() -> None:
        waiting = asyncio.create_task(guard(scope(), slow.receive, slow.send))
        while guard.buffered == 0:
            await asyncio.sleep(0)
        await guard(scope(), fast.receive, fast.send)
        await guard(scope(), later.receive, later.send)
        await waiting

    asyncio.run(together())
    assert (fast.status, fast.code, fast.headers["retry-after"]) == (503, "busy", "1")
    assert later.status == 200 and slow.status == 408
    assert guard.buffered == 0


def test_bodies_are_released_before_the_answer_is_fetched() -> None:
    guard = Guard(count, LIMITS, None)
    client, held = Client([b"x" * 90]), []

    async def send(message: Message) -> None:
        held.append(guard.buffered)

    asyncio.run(guard(scope(), client.receive, send))
    assert held == [0, 0]


def test_every_answer_tells_the_browser_what_it_may_do() -> None:
    guard = Guard(count, LIMITS, {"localhost"})
    answers = [ask(guard, Client([b""])), ask(guard, Client([b""]), host="evil.example")]
    answers.append(ask(guard, Client([b""]), length=1000))
    for client in answers:
        assert client.headers["content-security-policy"].startswith("default-src 'none'")
        assert client.headers["x-content-type-options"] == "nosniff"
        assert client.headers["cache-control"] == "no-store"


def test_the_log_has_a_line_without_the_clients_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ask(Guard(count, LIMITS, None), Client([b""]), path="/secret-path")
    (line,) = caplog.messages
    assert line.startswith("POST (no such path) 200 ") and "secret-path" not in caplog.text


def test_a_crash_of_the_application_is_not_swallowed() -> None:
    async def crash(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise RuntimeError("crash")

    guard = Guard(crash, LIMITS, None)
    with pytest.raises(RuntimeError, match="crash"):
        ask(guard, Client([b"x" * 90]))
    assert guard.buffered == 0


def test_refusals_carry_their_headers() -> None:
    error = Refused(503, "busy", "try again", retry_after=7, headers={"X-A": "b"})
    assert error.headers == {"X-A": "b", "Retry-After": "7"}
