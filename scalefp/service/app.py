"""The service's questions and answers: routes, their options, and every error in one shape."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.responses import Response
from starlette.types import ASGIApp

from scalefp import __version__
from scalefp.attribution.evidence import Form
from scalefp.registry import Record
from scalefp.registry.holders import clean_holder
from scalefp.registry.schema import MAX_HOLDER
from scalefp.service import answers
from scalefp.service.desk import Desk
from scalefp.service.guard import Guard, error_response
from scalefp.service.limits import Refused
from scalefp.service.manual import manual
from scalefp.service.readers import Upload

PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/report.js": ("report.js", "text/javascript"),
    "/verdict.js": ("verdict.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
DESCRIPTION = """Whose instance made an image: an issued key with an exact p-value, or nobody.
Every error is {"error": {"code", "message"}}; 503 comes with Retry-After. An image that cannot be
read has its error in the place of its answer, unless it was the only one. Verdicts on several
images as one source are exact only if the images were chosen without looking at earlier verdicts;
the log notes every question. No image is kept."""
CODES = {
    400: "bad_request, wrong_host",
    401: "wrong_token",
    403: "issuing_off, foreign_origin",
    408: "upload_too_slow",
    409: "no_key_issued, holder_has_key, holder_looks_like_another",
    413: "too_large, too_many_images",
    422: "invalid, image_refused, image_too_slow",
    500: "internal",
    503: "busy, registry_unavailable, registry_untrusted, stopping",
}
# What the framework itself refuses.
PLAIN = {
    400: ("bad_request", "the body cannot be read: /docs says what this path takes"),
    404: ("no_such_path", "there is nothing at this path: / is the page, /docs explains the rest"),
    405: ("method_not_allowed", "this path does not take this method: /docs says which"),
}


# Errors.


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if not isinstance(error, Refused):
        code, message = PLAIN.get(error.status_code, ("error", str(error.detail)))
        error = Refused(error.status_code, code, message, headers=error.headers)
    return error_response(error)


async def on_invalid(request: Request, error: Exception) -> Response:
    """Where and why, without what was sent: it may be a secret in the wrong place."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = " ".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    return error_response(Refused(422, "invalid", f"{where}: {what}"))


async def on_crash(request: Request, error: Exception) -> Response:
    return error_response(
        Refused(500, "internal", "the service failed; its log says where. Please report it")
    )


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI description: errors by status, with their codes."""
    return {one: {"model": answers.Problem, "description": CODES[one]} for one in (*statuses, 500)}


# What is sent.


async def receive(images: list[UploadFile], most: int) -> list[Upload]:
    """The files of one request, in memory."""
    if len(images) > most:
        raise Refused(
            413, "too_many_images", f"{len(images)} images were sent, at most {most} are allowed"
        )
    uploads = []
    for number, image in enumerate(images, start=1):
        uploads.append(Upload(image.filename or f"image {number}", await image.read()))
        await image.close()
    return uploads


class Recipient(BaseModel):
    """For whom a key is wanted."""

    model_config = ConfigDict(extra="forbid")
    holder: Annotated[
        str, StringConstraints(min_length=1, max_length=MAX_HOLDER), AfterValidator(clean_holder)
    ]


BEARER = HTTPBearer(auto_error=False, description="the token that the service was started with")


Given = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]


class Door:
    """A dependency that lets through who knows the token; without one it is closed to everybody."""

    def __init__(self, token: str | None) -> None:
        self._digest = None if token is None else hashlib.sha256(token.encode()).digest()

    def knows(self, given: Given) -> bool:
        """As a dependency: whether the client may see keys.

        Raises:
            Refused: something was sent that is not the token.
        """
        if given is not None:
            self(given)
        return given is not None

    def __call__(self, given: Given) -> None:
        if self._digest is None:
            raise Refused(
                403,
                "issuing_off",
                "keys are neither issued nor shown over HTTP: the service was started without a "
                "token",
            )
        digest = hashlib.sha256((given.credentials if given else "").encode()).digest()
        # Digests of equal length in constant time: how long it takes tells nothing of the token.
        if given is None or not hmac.compare_digest(digest, self._digest):
            raise Refused(
                401,
                "wrong_token",
                "keys are issued and shown to who sends the token: Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )


# Answers.


def listed(record: Record) -> dict[str, Any]:
    return {
        "holder": record.holder,
        "issued_at": record.issued_at,
        "revoked_at": record.revoked_at,
        "model_digest": record.model_digest,
    }


def add_page(app: FastAPI) -> None:
    """The investigator's page and the manual of the interface, read once."""

    def serve(path: str, content: bytes, media_type: str) -> None:
        async def answer(request: Request) -> Response:
            return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)

    for path, (name, media_type) in PAGE.items():
        serve(path, (files("scalefp.service") / "page" / name).read_bytes(), media_type)
    about = app.openapi()
    serve("/openapi.json", json.dumps(about).encode(), "application/json")
    serve("/docs", manual(about).encode(), "text/html")


def create_app(
    desk: Desk, *, token: str | None = None, hosts: Collection[str] | None = None
) -> ASGIApp:
    """The service as an ASGI application; it closes the desk when it is shut down.

    Args:
        token: needed to issue keys; None turns issuing off.
        hosts: see :class:`scalefp.service.guard.Guard`.
    """
    # Uploads stay in memory, whose size the guard bounds: nothing of an image touches the disk.
    MultiPartParser.spool_max_size = desk.limits.upload_bytes + 1
    limits, model, door = desk.limits, desk.model, Door(token)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title="scalefp",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=None,  # a page as the others, see add_page
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, on_crash)

    @app.post(
        "/attribute",
        summary="Say whose instance made each image",
        response_model=list[answers.Verdict | answers.NotJudged],
        response_model_exclude_unset=True,
        responses=problems(400, 401, 403, 408, 409, 413, 422, 503),
    )
    async def attribute(
        images: list[UploadFile],
        same_source: Annotated[
            bool, Query(description="all images come from one source: judge them as one")
        ] = False,
        fpr: Annotated[
            float,
            Query(
                gt=0,
                lt=1,
                description="accepted probability of naming anybody wrongly; at most what /health "
                "says under limits",
            ),
        ] = 1e-6,
        form: Annotated[
            Form,
            Query(description="test with the decoder's certainty of each bit, or with bits alone"),
        ] = "soft",
        with_keys: bool = Depends(door.knows),
    ) -> list[dict[str, Any]]:
        if fpr > limits.fpr:
            raise Refused(422, "invalid", f"query fpr: this service accepts at most {limits.fpr:g}")
        uploads = await receive(images, limits.images)
        return await desk.attribute(
            uploads, same_source=same_source, fpr=fpr, form=form, with_keys=with_keys
        )

    @app.post(
        "/decode",
        summary="Read the key in each image",
        response_model=list[answers.Decoded | answers.NotDecoded],
        response_model_exclude_unset=True,
        responses=problems(400, 408, 413, 422, 503),
    )
    async def decode(images: list[UploadFile]) -> list[dict[str, Any]]:
        return await desk.decode(await receive(images, limits.images))

    @app.post(
        "/keys",
        summary="Issue a new random key",
        status_code=201,
        response_model=answers.Issued,
        responses=problems(400, 401, 403, 408, 409, 413, 422, 503),
        dependencies=[Depends(door)],
    )
    async def issue(recipient: Recipient) -> dict[str, Any]:
        record = await desk.issue(recipient.holder)
        return {**listed(record), "key": str(record.key)}

    @app.head("/keys", include_in_schema=False)
    @app.get(
        "/keys",
        summary="List the keys ever issued, oldest first, without the keys",
        response_model=list[answers.Listed],
        responses=problems(400, 422, 503),
    )
    async def keys(
        holder: Annotated[
            str, Query(max_length=MAX_HOLDER, description="part of the holder's name")
        ] = "",
        skip: Annotated[int, Query(ge=0, le=10**9, description="leave out the first ones")] = 0,
        most: Annotated[int, Query(ge=1, le=1000, description="give no more than these")] = 100,
    ) -> list[dict[str, Any]]:
        return [listed(record) for record in await desk.search(holder, skip, most)]

    @app.head("/health", include_in_schema=False)
    @app.get(
        "/health",
        summary="Say what the service works with",
        response_model=answers.Health,
        responses=problems(400, 503),
    )
    async def health() -> dict[str, Any]:
        state = await desk.state()
        config = model.config
        return {
            "status": "ok",
            "version": __version__,
            "release": {
                "digest": model.digest,
                "resolution": config.resolution,
                "n_bits": config.n_bits,
            },
            "registry": {
                "issued": 0 if state is None else len(state.issued.holders),
                "head": None if state is None else state.head,
            },
            "issuing": token is not None,
            "limits": {
                "upload_bytes": limits.upload_bytes,
                "images": limits.images,
                "pixels": limits.pixels,
                "fpr": limits.fpr,
            },
        }

    add_page(app)
    return Guard(app, limits, hosts)
