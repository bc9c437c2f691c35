"""The desk: release, registry and workers that all requests share, and their work in steps."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from scalefp.attribution.evidence import Attribution, Form, IssuedKeys, attribute_each
from scalefp.attribution.odds import in_words
from scalefp.attribution.reading import Reading
from scalefp.errors import UserError
from scalefp.registry.registry import Record, Records, Registry
from scalefp.release.reader import Reader
from scalefp.service.limits import Limits, Refused, busy
from scalefp.service.network import Network
from scalefp.service.readers import Pixels, Readers, Upload

LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """The registry at one moment: all images of a request meet the same keys."""

    head: str  # digest of the newest audit entry
    n_bits: int | None
    model_digest: str | None
    issued: IssuedKeys

    def keys_and_holders(self) -> IssuedKeys:
        return self.issued


def take_snapshot(registry: Registry) -> Snapshot:
    while True:
        head = registry.head()
        n_bits, model_digest = registry.n_bits, registry.model_digest
        snapshot = Snapshot(head, n_bits, model_digest, registry.keys_and_holders())
        if registry.head() == head:  # nobody changed it meanwhile
            return snapshot


class Images(NamedTuple):
    """What is kept of the images of a request until it is answered."""

    names: list[str]
    sha256: list[str]
    reading: Reading

    def one_by_one(self) -> "list[Images]":
        return [
            Images([name], [digest], reading)
            for name, digest, reading in zip(*self[:2], self.reading, strict=True)
        ]


def named(found: Attribution) -> dict[str, Any]:
    return {
        "holder": found.holder,
        "key": str(found.key),
        "p_value": found.p_value,
        "odds": in_words(found.p_value),
        "matches": found.matches,
        "effective_bits": found.effective_bits,
        "margin": found.margin,
    }


class Desk:
    """What every question of :mod:`scalefp.service.app` is answered from.

    Args:
        workers: processes that decode images, and threads that ask the registry.

    All methods raise Refused for what the client, or the service's owner, can mend.
    """

    def __init__(self, model: Reader, registry: Registry, limits: Limits, workers: int) -> None:
        self.model, self.registry, self.limits = model, registry, limits
        self._readers = Readers(workers, model.config.resolution, limits)
        self._network = Network(model)
        self._clerks = ThreadPoolExecutor(workers, thread_name_prefix="registry")
        self._snapshot: Snapshot | None = None
        self._present = 0  # requests at work or waiting for it

    def close(self) -> None:
        """Stop processes and threads."""
        self._readers.close()
        self._network.close()
        self._clerks.shutdown(cancel_futures=True)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place among those who work or wait, for a limited time."""
        if self._present >= self.limits.waiting:
            raise busy()
        self._present += 1
        try:
            async with asyncio.timeout(self.limits.work_seconds):
                yield
        except TimeoutError:
            raise busy() from None
        finally:
            self._present -= 1

    async def _ask(self, question: Callable[..., T], *arguments: Any) -> T:
        """Ask the registry in a thread of its own: it may wait for a disk or another process."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._clerks, question, *arguments)
        except UserError as error:
            LOG.error("registry: %s", error)
            raise Refused(
                503,
                "registry_unavailable",
                "the registry cannot be used at the moment; the service's log says why",
                retry_after=30,
            ) from None

    def _open(self, uploads: Sequence[Upload]) -> tuple[Pixels, list[str]]:
        digests = [hashlib.sha256(upload.data).hexdigest() for upload in uploads]
        return self._readers.read(uploads), digests

    async def _read(self, uploads: Sequence[Upload]) -> Images:
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._readers.threads, self._open, uploads)
        pixels, digests = await work
        reading = await asyncio.wrap_future(self._network.submit(pixels))
        return Images([upload.name for upload in uploads], digests, reading)

    def _current(self) -> Snapshot:
        """The registry as it is now; read anew only when its head has moved."""
        try:
            head = self.registry.head()
        except UserError:
            if self.registry.model_digest is None:
                raise Refused(
                    409, "no_key_issued", "no key was issued yet: there is nobody to compare with"
                ) from None
            raise
        if self._snapshot is None or self._snapshot.head != head:
            self._snapshot = take_snapshot(self.registry)
        return self._snapshot

    def _judge(self, sources: Sequence[Images], fpr: float, form: Form) -> list[dict[str, Any]]:
        snapshot = self._current()
        readings = [source.reading for source in sources]
        answers = attribute_each(readings, snapshot, fpr, form=form)
        return [
            {
                "images": source.names,
                "sha256": source.sha256,
                "attributed": [named(one) for one in found],
                "fpr": fpr,
                "form": form,
                "issued": len(snapshot.issued.packed),
                "read": str(source.reading.key),
                "model_digest": self.model.digest,
                "registry_head": snapshot.head,
            }
            for source, found in zip(sources, answers, strict=True)
        ]

    async def attribute(
        self, uploads: Sequence[Upload], *, same_source: bool, fpr: float, form: Form
    ) -> list[dict[str, Any]]:
        """A verdict for each image, or one for all of them as one source."""
        async with self._place():
            images = await self._read(uploads)
            sources = [images] if same_source else images.one_by_one()
            return await self._ask(self._judge, sources, fpr, form)

    async def decode(self, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        """The key read in each image, whether or not anybody was given it."""
        async with self._place():
            images = await self._read(uploads)
            confidence = images.reading.confidence
            rows = zip(images.names, images.reading.keys, confidence, images.sha256, strict=True)
            return [
                {"image": name, "key": str(key), "confidence": float(sure), "sha256": digest}
                for name, key, sure, digest in rows
            ]

    def _issue(self, holder: str) -> Record:
        try:
            self.registry.issue(holder, self.model)
        except UserError:
            if self._has_active_key(holder):
                raise Refused(
                    409,
                    "holder_has_key",
                    "the holder has an active key already: revoke it first, or name another holder",
                ) from None
            raise
        return self.registry.show(holder)[-1]

    def _has_active_key(self, holder: str) -> bool:
        try:
            self.registry.find(holder)
        except UserError:
            return False
        return True

    async def issue(self, holder: str) -> Record:
        """Issue a key; ``holder`` is 1 to 200 printable characters."""
        async with self._place():
            return await self._ask(self._issue, holder)

    async def search(self, text: str, skip: int, most: int) -> Records:
        """Keys of holders with ``text`` in the name, oldest first; none before the first key."""

        def question() -> Records:
            if self.registry.model_digest is None:
                return []
            return self.registry.search(text, skip=skip, most=most)

        async with self._place():
            return await self._ask(question)

    async def state(self) -> Snapshot | None:
        """The registry as it is now, None before the first key."""
        async with self._place():
            try:
                return await self._ask(self._current)
            except Refused as error:
                if error.code == "no_key_issued":
                    return None
                raise
