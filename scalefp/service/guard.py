"""Around every request: for which host, how much in which time, and what a browser may do with it.

An ASGI middleware around the whole application, so that nothing is answered without it. Bodies
are counted while they arrive: what a client promises is not believed, and a slow one holds no more
memory than it has sent.
"""

import asyncio
import json
import logging
import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scalefp.service.limits import Limits, Refused, busy

LOG = logging.getLogger(__name__)

# The page brings everything along; blob: is how it shows the investigator's own files.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
UPLOAD_PATHS = ("/attribute", "/decode")
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def error_response(error: Refused) -> Response:
    body = {"error": {"code": error.code, "message": error.detail}}
    return Response(
        json.dumps(body), error.status_code, error.headers, media_type="application/json"
    )


def host_name(header: str) -> str:
    """The name in a Host header, without the port: ``[::1]:8000`` -> ``[::1]``."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdecimal() else header).lower()


class _Body:
    """The body of one request on its way in."""

    def __init__(self, guard: "Guard", scope: Scope, receive: Receive) -> None:
        self.guard, self.receive_raw = guard, receive
        self.declared = Headers(scope=scope).get("content-length", "0")
        self.deadline = asyncio.get_running_loop().time() + guard.limits.upload_seconds
        is_upload = scope["path"] in UPLOAD_PATHS
        self.most = guard.limits.upload_bytes if is_upload else guard.limits.other_bytes
        self.received = 0
        self.whole = False

    def _check_size(self, size: int) -> None:
        if size > self.most:
            raise Refused(
                413, "too_large", f"the request is larger than {self.most:,} bytes: send less"
            )

    async def receive(self) -> Message:
        if self.whole:
            return await self.receive_raw()
        if self.declared.isdecimal():
            self._check_size(int(self.declared))
        try:
            async with asyncio.timeout_at(self.deadline):
                message = await self.receive_raw()
        except TimeoutError:
            seconds = self.guard.limits.upload_seconds
            raise Refused(
                408,
                "upload_too_slow",
                f"the request did not arrive within {seconds:g} s: send fewer images at a time",
            ) from None
        size = len(message.get("body", b""))
        self._check_size(self.received + size)
        if self.guard.buffered + size > self.guard.limits.buffered_bytes:
            raise busy()
        self.received += size
        self.guard.buffered += size
        self.whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def release(self) -> None:
        self.guard.buffered -= self.received
        self.received = 0


class Guard:
    """ASGI middleware: host names, size and time of bodies, response headers, one log line.

    Args:
        hosts: names under which the service may be asked for, None for any. A name of its own
            that points to 127.0.0.1 would otherwise let any web site that the investigator
            visits read the answers (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, limits: Limits, hosts: Collection[str] | None) -> None:
        self.app, self.limits, self.hosts = app, limits, hosts
        self.buffered = 0  # bytes of all bodies that are being received or worked on

    def _check_host(self, scope: Scope) -> None:
        name = host_name(Headers(scope=scope).get("host", ""))
        if self.hosts is not None and name not in self.hosts:
            raise Refused(
                400, "wrong_host", "the service is not meant to be reached under this host name"
            )

    def _check_origin(self, scope: Scope) -> None:
        """Browsers say which page asks; programs say nothing, and may ask."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None:
            return
        # Another port of this machine is another site; a proxy may ask under a name of its own.
        place = origin.partition("://")[2].lower()
        proxies = set(self.hosts or ()).difference(LOOPBACK)
        if place != headers.get("host", "").lower() and host_name(place) not in proxies:
            raise Refused(
                403, "foreign_origin", "pages of other sites may not ask this service anything"
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status, body = time.perf_counter(), 500, _Body(self, scope, receive)

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                body.release()  # before the answer: its reader may be slow
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check_host(scope)
            self._check_origin(scope)
            await self.app(scope, body.receive, send_guarded)
        except Refused as error:
            await error_response(error)(scope, receive, send_guarded)
        except asyncio.CancelledError:  # only the server's own end comes as far as this
            end = Refused(503, "stopping", "the service is being stopped: try again later")
            await error_response(end)(scope, receive, send_guarded)
        finally:
            body.release()
            # The route's own pattern, never what the client wrote: that may be anything.
            path = getattr(scope.get("route"), "path", "(no such path)")
            milliseconds = 1000 * (time.perf_counter() - begun)
            LOG.info("%s %s %d %.0f ms", scope["method"], path, status, milliseconds)
