"""One HTTP connection, which is dropped when no request arrives in time.

uvicorn waits for ever for the rest of a request's head; clients that send one byte a minute would
take every place. What comes after the head is timed by the guard, which also says in words when
there is too much to do: here connections are only kept below the number of open files.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from scalefp.service.guard import HEADERS, error_response
from scalefp.service.limits import Refused

HEAD_SECONDS = 30.0
MOST = 800  # connections at a time; whoever comes then is not even answered


class Connection(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
            return
        self._expect_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_request()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the shape of every error, and hang up.

        Nothing is said where an answer was sent already: what follows is the rest of its request.
        """
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            why = "this is no HTTP request that can be read: /docs says what the service takes"
            headers = {**HEADERS, "Connection": "close"}
            answer = error_response(Refused(400, "bad_request", why, headers=headers))
            for event in (
                h11.Response(status_code=400, headers=answer.raw_headers, reason=b"Bad Request"),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect_request(self) -> None:
        self.loop.call_later(HEAD_SECONDS, self._drop_if_still, self.cycle)

    def _drop_if_still(self, cycle: Any) -> None:
        """Unless a request has begun since; an answer that nobody fetches ends here, too."""
        if self.cycle is cycle:
            self.transport.abort()
