"""Filling packs and storing them on threads, with bounded memory."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

import attrs

from artfs.catalog.entry import Extent
from artfs.catalog.layout import PACK_DATA
from artfs.errors import DeadlineExceeded
from artfs.faults import fault_point
from artfs.registry import KnownExtent
from artfs.store.backend import views
from artfs.store.objects import ObjectStore
from artfs.store.pack import PackBuilder, SealedPack

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

_OWN_PACK: Final = PACK_DATA // 2
"""An extent longer than this that does not fit gets a pack of its own, so that the open one can go on filling."""
REGISTER_WITHIN: Final = 1800.0
"""Seconds, those of a suspended machine included, after which a pack that was stored is not registered any more: it
could be deleted as an orphan at the same moment."""
_ABORT_WAIT: Final = 2.0
"""Seconds that giving up waits for what is being sent; a request that was sent cannot be called back."""


class PackRegistry(Protocol):
    """What the uploader needs of the registry."""

    def register_pack(
        self, version_id: str | None, key: str, size: int, checksums: bytes, extents: Sequence[KnownExtent], /
    ) -> None:
        """Make a stored pack known, pinned by a version that is being written."""


@attrs.frozen
class UploadStatistics:
    """Counts of one uploader."""

    packs: int = 0
    """Packs stored and registered."""
    data_bytes: int = 0
    """Bytes of extents in them."""
    stored_bytes: int = 0
    """Bytes of the objects, indexes and footers included."""


class Uploader:
    """Puts extents into packs and packs into the store; each is registered as soon as it is stored.

    One thread adds; ``parallel`` threads store. At most ``parallel`` + 1 packs, open ones included, are in memory:
    ``add`` waits for room. The first failure ends everything and is raised by the next ``add`` or by ``finish``.
    A context manager: leaving it without ``finish`` gives up what is not stored yet.
    """

    def __init__(
        self,
        store: ObjectStore,
        registry: PackRegistry,
        version_id: str | None,
        *,
        parallel: int = 4,
        pack_timeout: float = 600.0,
        on_progress: Callable[[int], None] | None = None,
        on_registered: Callable[[Sequence[KnownExtent]], None] | None = None,
    ) -> None:
        """``pack_timeout``: seconds for storing one pack, retries included.

        Called on the threads that store, after each pack is registered: ``on_progress`` with the bytes of its data,
        ``on_registered`` with its extents.
        """
        self._store = store
        self._registry = registry
        self._version_id = version_id
        self._pack_timeout = pack_timeout
        self._on_progress = on_progress
        self._on_registered = on_registered
        self._open: PackBuilder | None = None
        self._sealed: queue.SimpleQueue[SealedPack] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._room = parallel + 1  # packs that may still be begun; this and all below: under _changed
        self._packs = parallel + 1
        self._failure: BaseException | None = None
        self._closed = False
        self._counts = UploadStatistics()
        self._threads: list[threading.Thread] = []
        self._parallel = parallel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def stored_bytes(self) -> int:
        """Bytes of the objects stored so far."""
        return self._counts.stored_bytes

    def add(self, sha256: bytes, data: Buffer | Sequence[Buffer]) -> Extent:
        """Take an extent of at most 64 MiB, in one buffer or several; where it will be. The data is copied."""
        chunks = views(data)
        length = sum(map(len, chunks))
        if not 0 < length <= PACK_DATA:
            raise ValueError("an extent holds 1 byte to 64 MiB")
        fits = self._open is not None and length <= self._open.room()
        if not fits and length > _OWN_PACK:
            pack = self._begin()
            pack.append(sha256, chunks)
            self._send(pack)
            return Extent(pack.key, 0, length)
        if not fits:
            self._send_open()
            self._open = self._begin()
        assert self._open is not None  # begun above, or it has room
        extent = Extent(self._open.key, self._open.append(sha256, chunks), length)
        if not self._open.room():
            self._send_open()
        return extent

    def finish(self) -> None:
        """Store what is left and wait until everything is registered."""
        self._send_open()
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self._room == self._packs)
            self._check()
        self.close()

    def abort(self) -> None:
        """Give up what is not stored yet. What is being sent is waited for a moment, and not registered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._open = None
        while not self._sealed.empty():
            self._sealed.get()
        for _ in self._threads:
            self._sealed.put(_END)
        until = time.monotonic() + _ABORT_WAIT
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    close = abort

    def statistics(self) -> UploadStatistics:
        """What has been stored so far."""
        return self._counts

    def _begin(self) -> PackBuilder:
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self._room > 0 or self._closed)
            self._check()
            if self._closed:
                raise ValueError("the uploader is closed")
            self._room -= 1
        return PackBuilder()

    def _send_open(self) -> None:
        pack, self._open = self._open, None
        if pack is not None:
            self._send(pack)

    def _send(self, pack: PackBuilder) -> None:
        self._sealed.put(pack.seal())
        if len(self._threads) < self._parallel:
            # Daemons: a stalled server must not hold up the end of the process.
            thread = threading.Thread(target=self._work, name="artfs-upload", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (pack := self._sealed.get()) is not _END:
            try:
                self._upload(pack)
            except BaseException as error:  # noqa: BLE001  it belongs to the thread that adds, which raises it
                with self._changed:
                    self._failure = self._failure or error
                    self._changed.notify_all()
                return
            del pack  # its memory may be used for the next one
            with self._changed:
                self._room += 1
                self._changed.notify_all()

    def _given_up(self) -> bool:
        return self._closed or self._failure is not None

    def _upload(self, pack: SealedPack) -> None:
        if self._given_up():
            return
        begun = _time_awake_or_asleep()
        self._store.put(pack.key, pack.buffers, deadline=time.monotonic() + self._pack_timeout)
        fault_point("pack-stored")
        if _time_awake_or_asleep() - begun > REGISTER_WITHIN:
            raise DeadlineExceeded(what=f"storing {pack.key}", seconds=REGISTER_WITHIN)
        if self._given_up():
            return  # an orphan in the store, which garbage collection finds
        self._registry.register_pack(self._version_id, pack.key, pack.size, pack.checksums, pack.extents)
        with self._changed:
            counts = self._counts
            self._counts = UploadStatistics(
                counts.packs + 1, counts.data_bytes + pack.size, counts.stored_bytes + pack.stored_size
            )
        fault_point("pack-registered")
        if self._on_registered is not None:
            self._on_registered(pack.extents)
        if self._on_progress is not None:
            self._on_progress(pack.size)


def _time_awake_or_asleep() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_END = SealedPack("", (), 0, b"", ())
