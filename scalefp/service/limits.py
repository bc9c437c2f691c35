"""What one request may ask for, and the one exception that refuses it."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds on one request, and on all of them together. Beyond them a request is refused."""

    upload_bytes: int = 32 * MIB  # body of a request with images
    other_bytes: int = 1 << 16  # body of any other
    images: int = 64  # in one request
    pixels: int = 25_000_000  # of one image, read from its header
    upload_seconds: float = 60.0  # until the body is there
    image_seconds: float = 10.0  # to decode one image; then its process is killed
    work_seconds: float = 60.0  # from the body to the answer, waiting included
    health_seconds: float = 5.0  # of these for /health, which asks the registry alone
    waiting: int = 128  # requests at work or waiting for it
    buffered_bytes: int = 256 * MIB  # of all bodies in memory
    # Greatest accepted probability of naming anybody wrongly. With a large one the service would
    # tell any visitor the names of those that his pictures happen to lean to.
    fpr: float = 1e-3


class Refused(HTTPException):
    """A request that is answered with ``{"error": {"code", "message"}}``.

    Args:
        status: HTTP status.
        code: stable word for programs.
        message: one sentence: what is wrong and how to mend it. It holds no key and no path of
            the server.
        retry_after: seconds, where trying again later helps.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        named = dict(headers or {})
        if retry_after is not None:
            named["Retry-After"] = str(retry_after)
        super().__init__(status, detail=message, headers=named)
        self.code = code


def busy() -> Refused:
    return Refused(503, "busy", "the service is busy: try again in a moment", retry_after=1)
