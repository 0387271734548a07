"""A staging area being mounted: uploading while its user works, and publishing it when the mount ends."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from artfs.errors import ArtfsError, SourceChanged
from artfs.names import CollectionName
from artfs.staging.area import Area
from artfs.staging.entries import source_file
from artfs.staging.publish import NOTHING, Outcome, publish
from artfs.staging.schema import FIRST
from artfs.staging.tree import StagingTree
from artfs.versions.ingest import ingest
from artfs.versions.log import Labels
from artfs.versions.publication import Publication
from artfs.versions.repository import Repository
from artfs.versions.scan import SourceFile
from artfs.vfs.tree import Tree

log = logging.getLogger(__name__)

_REST: Final = 3_000_000_000
"""Nanoseconds without a change after which a closed file is uploaded."""
_ROUND: Final = 2.0
"""Seconds between two looks for such files."""
_RETRY: Final = 30.0
"""Seconds before the store is tried again that was out of reach."""
_TELL: Final = 0.2


@attrs.frozen
class Plan:
    """What is to become of the area when the mount ends."""

    commit: Labels | None = None
    """Labels of the version; None for a draft."""
    require_latest: bool = False


@attrs.frozen
class Status:
    """How far the end of a mount has come, for whoever waits for it: one JSON object in a file."""

    state: str
    """``mounted``, ``publishing``, ``done``, ``nothing`` (no change), or ``kept`` (it failed, the area stays)."""
    files: int = 0
    bytes: int = 0
    area: str = ""
    outcome: dict[str, Any] | None = None
    error: str = ""
    exit_code: int = 0


class StatusFile:
    """Where a mount tells its status; replaced whole, so that a reader never sees half of one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, status: Status) -> None:
        """Tell, unless this is about the end of a mount in whose place there is another by now."""
        told = self.read()
        if status.state != "mounted" and told is not None and told.area != status.area:
            return
        fresh = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_text(json.dumps(attrs.asdict(status)), encoding="utf-8")
            fresh.replace(self._path)
        except OSError as error:
            log.warning("cannot tell in %s how far this is: %s", self._path, error)

    def read(self) -> Status | None:
        """What was told last."""
        try:
            return Status(**json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # nothing told yet, or by another release
            return None

    def remove(self) -> None:
        """Nothing to tell any more."""
        self._path.unlink(missing_ok=True)


class StagedMount(StagingTree):
    """The tree of a writable mount. ``close`` publishes the area, and keeps it where that fails."""

    def __init__(
        self, repository: Repository, area: Area, base: Tree | None, plan: Plan, status: StatusFile | None = None
    ) -> None:
        """Take over ``area``, ``base`` (which must not close ``repository``) and ``repository``."""
        super().__init__(area, base)
        self._repository = repository
        self._plan = plan
        self._status = status
        self._publication: Publication | None = None
        self._uploaded = FIRST - 1  # new inodes up to this one have been looked at
        self._ending = threading.Event()
        self._tell(Status("mounted", area=area.id))
        self._uploader = threading.Thread(target=self._upload, name="staging-upload", daemon=True)
        self._uploader.start()

    def close(self) -> None:
        """Publish the area and delete it; if that fails, log why and keep it for ``artfs commit``."""
        path = self._area.path
        self._ending.set()
        self._uploader.join()
        self._content.sync()
        status = self._publish()
        self._drop_publication()
        super().close()
        self._repository.close()
        if status.state != "kept":
            Area(path).discard()
        self._tell(status)

    def statistics(self) -> dict[str, Any]:
        """Those of the area and of the parts beneath."""
        return dict(super().statistics()) | self._repository.statistics() | {"area": str(self._area.path)}

    def _publish(self) -> Status:
        area = self._area.id
        files = size = 0
        told = 0.0

        def progress(more_files: int, more_bytes: int) -> None:
            nonlocal files, size, told
            files += more_files
            size += more_bytes
            if time.monotonic() - told > _TELL:
                told = time.monotonic()
                self._tell(Status("publishing", files, size, area))

        try:
            if self._publication is None:
                self._publication = self._open_publication()
            outcome = publish(
                self._repository,
                self,
                self._publication,
                commit=self._plan.commit,
                require_latest=self._plan.require_latest,
                progress=progress,
            )
        except ArtfsError as error:
            log.error("%s; what was written is kept: artfs commit %s", error, area)  # noqa: TRY400 - foreseen
            return Status("kept", files, size, area, error=str(error), exit_code=error.exit_code)
        except Exception as error:
            log.exception("the staging area %s could not be published and is kept", area)
            return Status("kept", files, size, area, error=f"{type(error).__name__}: {error}", exit_code=1)
        log.info("%s", describe(outcome))
        return Status("done" if outcome.name else "nothing", files, size, area, outcome=attrs.asdict(outcome))

    def _open_publication(self) -> Publication:
        facts = self.facts
        collection = CollectionName(*facts.collection.split("/"))
        return Publication(self._repository, collection, facts.type, origin="mount", version_id=facts.pending)

    def _tell(self, status: Status) -> None:
        if self._status is not None:
            self._status.write(status)

    # -- while the user works -------------------------------------------------------------------------------------

    def _upload(self) -> None:
        """Store new files that are closed and have rested; what changes again is simply stored again at the end."""
        pause = _ROUND
        while not self._ending.wait(pause):
            pause = _ROUND
            try:
                self._upload_rested()
            except SourceChanged as error:
                log.debug("%s", error)  # it will have rested again
            except ArtfsError as error:
                log.info("uploading ahead is put off: %s", error)
                self._drop_publication()  # an uploader that failed stays failed
                pause = _RETRY
            except Exception:  # a defect here must not cost the rest of the mount its uploading ahead
                log.exception("uploading ahead is put off")
                self._drop_publication()
                pause = _RETRY

    def _upload_rested(self) -> None:
        if next(self._rested(), None) is None:
            return
        if self._publication is None:
            self._publication = self._open_publication()
        for _ in ingest(self._rested(), self._publication.packs, self._repository.hashes, _nobody):
            if self._ending.is_set():
                return

    def _rested(self) -> Iterator[SourceFile]:
        """New files by inode, up to the first that is open or has just been written."""
        query = "SELECT inode FROM inode WHERE inode>? AND shown=0 AND nlink>0 ORDER BY inode LIMIT 256"
        before = time.time_ns() - _REST
        done = self._uploaded
        while page := self.view.database.all(query, done):
            for (inode,) in page:
                with contextlib.suppress(ArtfsError):  # removed meanwhile
                    file = source_file(self.view, self.view.get(inode), f"inode {inode}")
                    if self._files.is_open(inode) or file.identity[2] > before:
                        return
                    yield file
                done = inode
                self._uploaded = max(self._uploaded, done - 1)  # this one may still be under way

    def _drop_publication(self) -> None:
        publication, self._publication = self._publication, None
        if publication is not None:
            publication.__exit__(None, None, None)


def _nobody(_files: int, _size: int) -> None:
    """Progress that nobody watches."""


def describe(outcome: Outcome) -> str:
    """One sentence for the log and for who unmounts."""
    if not outcome.name:
        return NOTHING
    counts = outcome.counts
    what = f"{counts.added} added, {counts.changed} changed, {counts.removed} removed"
    return f"{outcome.name}: {what}, {outcome.stored_bytes} bytes stored"
