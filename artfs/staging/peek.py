"""Looking at a staging area that another process has open."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from artfs.catalog import Catalog, Difference
from artfs.staging.changes import changes
from artfs.staging.database import Database
from artfs.staging.files import LocalFiles
from artfs.staging.view import View


@contextlib.contextmanager
def peek(area: Path) -> Iterator[Iterator[Difference]]:
    """What an area has changed against its base, whoever has it open; raises LocalIOError."""
    database = Database(area / "staging.db", read_only=True)
    try:
        base = Catalog(area / "base.db", area.name)
        try:
            yield changes(View(database, base, LocalFiles(area / "data")))
        finally:
            base.close()
    finally:
        database.close()
