"""One HTTP connection, which is dropped when no request arrives in time.

uvicorn waits for ever for the rest of a request's head; a few hundred clients that send one byte
a minute would take every place. What comes after the head is timed by the guard.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0


class Connection(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_request()

    def _expect_request(self) -> None:
        self.loop.call_later(HEAD_SECONDS, self._drop_if_still, self.cycle)

    def _drop_if_still(self, cycle: Any) -> None:
        """Unless a request has begun since; an answer that nobody fetches ends here, too."""
        if self.cycle is cycle:
            self.transport.abort()
