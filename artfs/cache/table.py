"""The parts that this process has open: an LRU by number of descriptors."""

from __future__ import annotations

import logging
import os
import resource
import threading
import time
import uuid
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Final

from cachetools import LRUCache

from artfs.cache.part import RENEWAL, Part, boot_id, create_part, make_private, open_part
from artfs.cache.source import Source

log = logging.getLogger(__name__)

MOST_OPEN: Final = 1024
"""Open parts at most, if a quarter of the descriptor limit allows as many: 64 GiB of packs."""


def _capacity() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN if soft == resource.RLIM_INFINITY else min(MOST_OPEN, max(8, soft // 4))


class PartTable:
    """Opens, creates and forgets parts under ``directory/parts``. Thread-safe.

    ``tend`` runs once a minute while parts are open: it passes on which ones were used, and closes those that eviction
    (here or in another process) has unlinked, because their space is free only when nobody has them open.
    """

    def __init__(self, directory: Path) -> None:
        self._parts = directory / "parts"
        self._temporary = directory / "tmp"
        self._boot = boot_id()
        self._lock = threading.Lock()
        self._open: LRUCache[str, Part] = LRUCache(_capacity())
        self._known: weakref.WeakSet[Part] = weakref.WeakSet()
        self._stop = threading.Event()
        self._janitor: threading.Thread | None = None

    def path(self, name: str) -> Path:
        """Where the part of this name lives."""
        return self._parts / name[:2] / name

    def get(self, name: str) -> Part | None:
        """The part, if it is open already."""
        with self._lock:
            return self._open.get(name)

    def open(self, source: Source, deadline: float, *, create: bool = True) -> Part | None:
        """The part of a source, opened or created; None if it is absent and ``create`` is false.

        Raises OSError if the disk cannot be used, and DeadlineExceeded.
        """
        part = self.get(source.name)
        if part is not None and part.size == source.size:
            return part
        path = self.path(source.name)
        for _ in range(8):
            try:
                part = open_part(path, source.size, self._boot, deadline)
            except FileNotFoundError:
                if not create:
                    return None
                self._create(path, source)
                continue
            if part is not None:
                return self._keep(source.name, part)
            # If two processes come here at once, one may unlink the other's new part: fetched once more, never wrong.
            log.warning("cached part %s of %s is not usable; it is made anew", path, source.label)
            with suppress(FileNotFoundError):
                os.unlink(path)
        # Somebody removes parts faster than they can be opened.
        return None

    def forget(self, name: str, part: Part, *, unlink: bool = False) -> None:
        """Drop an open part that is unlinked, or damaged and to be unlinked."""
        with self._lock:
            if self._open.get(name) is part:
                del self._open[name]
        if unlink and not part.unlinked():
            with suppress(FileNotFoundError):
                os.unlink(self.path(name))

    def tend(self) -> None:
        """Renew the times of the parts in use and close those that are unlinked."""
        with self._lock:
            parts = list(self._open.items())
        for name, part in parts:
            part.renew()
            if part.unlinked():
                self.forget(name, part)

    def close(self) -> None:
        """Close every part that no reader is using, the others when their readers are done."""
        self._stop.set()
        with self._lock:
            parts = list(self._open.values())
            self._open.clear()
        for part in parts:
            part.renew()

    def abandon(self) -> None:
        """In a forked child: close the parent's descriptors, else the child would keep the parent's locks alive."""
        for part in list(self._known):
            part.close()

    def __len__(self) -> int:
        return len(self._open)

    def _create(self, path: Path, source: Source) -> None:
        temporary = self._temporary / f"{source.name}.{uuid.uuid4().hex}"
        make_private(self._parts.parent, self._parts, path.parent, self._temporary)
        create_part(path, temporary, source.size, self._boot)

    def _keep(self, name: str, part: Part) -> Part:
        part.used = True
        part.renew()
        with self._lock:
            present = self._open.get(name)
            if present is not None and present.size == part.size:
                return present
            if len(self._open) >= self._open.maxsize:
                _, oldest = self._open.popitem()
                oldest.renew()
            self._open[name] = part
            self._known.add(part)
            if self._janitor is None and not self._stop.is_set():
                self._janitor = threading.Thread(target=self._tend_regularly, name="artfs-parts", daemon=True)
                self._janitor.start()
        return part

    def _tend_regularly(self) -> None:
        while not self._stop.wait(RENEWAL):
            began = time.monotonic()
            self.tend()
            log.debug("looked after %d open parts in %.3f s", len(self), time.monotonic() - began)
