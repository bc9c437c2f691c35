"""The desk: release, registry and workers that all requests share, and their work in steps."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from scalefp.attribution.evidence import Form, attribute_each
from scalefp.attribution.odds import in_words
from scalefp.attribution.reading import Reading
from scalefp.attribution.verdict import verdict
from scalefp.errors import UntrustedRegistryError, UserError
from scalefp.registry import Record, Registry, Snapshot
from scalefp.registry.holders import LookalikeError
from scalefp.registry.registry import Records
from scalefp.release.reader import Reader
from scalefp.service.limits import Limits, Refused, busy
from scalefp.service.network import Network
from scalefp.service.readers import Pixels, Readers, Upload

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Unread(NamedTuple):
    """An image of a request that could not be read, as it is answered beside the others."""

    name: str
    sha256: str
    why: Refused

    def entry(self) -> dict[str, Any]:
        error = {"code": self.why.code, "message": self.why.detail}
        return {"images": [self.name], "sha256": [self.sha256], "error": error}


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


def in_places(rows: Sequence[T], others: dict[int, T]) -> list[T]:
    """``rows`` in their order, with each of ``others`` inserted at its place in the result."""
    rest = iter(rows)
    return [others[i] if i in others else next(rest) for i in range(len(rows) + len(others))]


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
        self._asked = 0  # questions whose image it was, numbered for the log

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
        except UntrustedRegistryError as error:
            LOG.error("registry: %s", error)
            raise Refused(
                503,
                "registry_untrusted",
                "the registry was changed behind its log or holds keys that were never drawn, so "
                "nobody is named; `scalefp registry verify` and the service's log say more",
            ) from None
        except UserError as error:
            LOG.error("registry: %s", error)
            raise Refused(
                503,
                "registry_unavailable",
                "the registry cannot be used at the moment; the service's log says why",
                retry_after=30,
            ) from None

    def _open(self, uploads: Sequence[Upload]) -> tuple[list[Pixels | Refused], list[str]]:
        digests = [hashlib.sha256(upload.data).hexdigest() for upload in uploads]
        return self._readers.read(uploads), digests

    async def _read(self, uploads: Sequence[Upload]) -> tuple[Images, dict[int, Unread]]:
        """The images that can be read, and by their place in the request those that cannot.

        Raises:
            Refused: none can be read; it is said of the first.
        """
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._readers.threads, self._open, uploads)
        opened, digests = await work
        sent = list(zip(uploads, digests, opened, strict=True))
        unread = {
            place: Unread(upload.name, digest, answer)
            for place, (upload, digest, answer) in enumerate(sent)
            if isinstance(answer, Refused)
        }
        good = [(u.name, digest, p) for u, digest, p in sent if not isinstance(p, Refused)]
        if not good:
            raise unread[0].why
        names, read_digests, pixels = zip(*good, strict=True)
        reading = await asyncio.wrap_future(self._network.submit(np.stack(pixels)))
        return Images(list(names), list(read_digests), reading), unread

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
            self._snapshot = self.registry.snapshot()
        return self._snapshot

    def _judge(
        self, sources: Sequence[Images], fpr: float, form: Form, *, with_keys: bool
    ) -> list[dict[str, Any]]:
        snapshot = self._current()
        readings = [source.reading for source in sources]
        answers = attribute_each(readings, snapshot, fpr, form=form)
        entries = []
        for source, found in zip(sources, answers, strict=True):
            entry = verdict(
                source.names, found, fpr=fpr, form=form, issued=len(snapshot),
                n_bits=source.reading.n_bits, with_keys=with_keys,
            )  # fmt: skip
            for one in entry["attributed"]:
                one["odds"] = in_words(one["p_value"])
            entry["sha256"] = source.sha256
            if with_keys:
                entry["read"] = str(source.reading.key)
            entries.append(
                entry | {"model_digest": self.model.digest, "registry_head": snapshot.head}
            )
        return entries

    def _note(self, images: Images, how: str, entries: Sequence[dict[str, Any]]) -> None:
        """Log what was asked, in what order: evidence that was picked after looking is none."""
        self._asked += 1
        LOG.info(
            "question %d: %s, %d image(s) %s: %d of %d verdict(s) with a name",
            self._asked,
            how,
            len(images.names),
            " ".join(digest[:16] for digest in images.sha256),
            sum(bool(entry["attributed"]) for entry in entries),
            len(entries),
        )

    async def attribute(
        self,
        uploads: Sequence[Upload],
        *,
        same_source: bool,
        fpr: float,
        form: Form,
        with_keys: bool,
    ) -> list[dict[str, Any]]:
        """A verdict for each image, or one for all of them as one source.

        Images that cannot be read are answered for in their places, or are listed with the one
        verdict on the others.
        """
        async with self._place():
            images, unread = await self._read(uploads)
            sources = [images] if same_source else images.one_by_one()
            judge = partial(self._judge, with_keys=with_keys)
            entries = await self._ask(judge, sources, fpr, form)
            how = f"{'one source' if same_source else 'each by itself'}, {form}, fpr {fpr:g}"
            self._note(images, how, entries)
            if same_source:
                entries[0]["unread"] = [one.entry() for one in unread.values()]
                return entries
            return in_places(entries, {place: one.entry() for place, one in unread.items()})

    async def decode(self, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        """The key read in each image, whether or not anybody was given it."""
        async with self._place():
            images, unread = await self._read(uploads)
            confidence = images.reading.confidence
            rows = zip(images.names, images.reading.keys, confidence, images.sha256, strict=True)
            read = [
                {"image": name, "key": str(key), "confidence": float(sure), "sha256": digest}
                for name, key, sure, digest in rows
            ]
            failed = {
                place: {"image": one.name, "sha256": one.sha256, "error": one.entry()["error"]}
                for place, one in unread.items()
            }
            return in_places(read, failed)

    def _issue(self, holder: str) -> Record:
        try:
            self.registry.issue(holder, self.model)
        except LookalikeError as error:
            raise Refused(409, "holder_looks_like_another", str(error)) from None
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
        """The registry as it is now, None before the first key.

        Whoever watches the service gets an answer soon, though another process holds the registry.
        """
        seconds = self.limits.health_seconds
        async with self._place():
            try:
                async with asyncio.timeout(seconds):
                    return await self._ask(self._current)
            except TimeoutError:
                LOG.error("registry: no answer within %g s", seconds)
                raise Refused(
                    503,
                    "registry_unavailable",
                    f"the registry did not answer within {seconds:g} s: another process holds it, "
                    "or much of it is being read; try again",
                    retry_after=5,
                ) from None
            except Refused as error:
                if error.code == "no_key_issued":
                    return None
                raise
