"""Connections to the registry's database: opening, transactions, and what its failures mean.

One writer at a time, on both databases: ``BEGIN IMMEDIATE`` on SQLite, a transaction-level advisory lock on
PostgreSQL. Writes are few and short (a pack is 64 MiB of content), and every check that is followed by a write is
exact without further thought. Readers are never in the way: they see a snapshot.
"""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from sqlalchemy import Connection, Engine, create_engine, event, exc, insert, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import Pool

from artfs.errors import (
    ConfigurationError,
    DiskFull,
    LocalIOError,
    MissingExtra,
    RegistryUnavailable,
    SchemaMismatch,
)
from artfs.registry import schema

log = logging.getLogger(__name__)

LOCK_TIMEOUT: Final = 30.0
"""Seconds that a writer waits for another one."""
_ADVISORY_LOCK: Final = 0x61727466_73  # "artfs": the write lock's number within a PostgreSQL database
# libpq: give up connecting, and notice a server that vanished, within half a minute instead of TCP's hours.
_POSTGRESQL: Final = {
    "connect_timeout": int(LOCK_TIMEOUT),
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": int(LOCK_TIMEOUT * 1000),
}
_HIDDEN: Final = ("password", "passwd", "sslpassword", "service", "passfile")


@attrs.frozen
class RegistryStatistics:
    """Counts since the registry was opened by this process."""

    reads: int
    """Read transactions."""
    writes: int
    """Write transactions, rolled back ones included."""
    rollbacks: int
    """Write transactions that ended with an error."""
    busy: int
    """Times a writer found another one at work and tried again (SQLite only)."""
    lock_seconds: float
    """Time that writers waited for other writers, over all threads."""
    failures: int
    """Transactions that failed because the database did not answer or was locked for too long."""


class Database:
    """The engine of one registry; thread-safe, and safe to use in a forked child."""

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError, MissingExtra; touches nothing yet."""
        self.url = _parse(url)
        self.redacted = _redact(self.url)
        self._lock = threading.Lock()
        self._reads = self._writes = self._rollbacks = self._busy = self._failures = 0
        self._lock_seconds = 0.0
        self.engine = _engine(self.url)
        self._reader = self.engine.execution_options(
            **({} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True})
        )
        self._writer = self.engine.execution_options(artfs_write=True)
        if self.is_sqlite:
            event.listen(self.engine, "begin", self._begin_sqlite)
        _engines.add(self.engine)

    @property
    def is_sqlite(self) -> bool:
        """Whether the registry is a local file."""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot; raises RegistryUnavailable."""
        with self._lock:
            self._reads += 1
        with self._mapped(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The registry's only writer until the block ends, then committed; raises RegistryUnavailable, DiskFull."""
        began = time.monotonic()
        waited = None
        done = False
        try:
            with self._mapped(), self._writer.begin() as connection:
                if not self.is_sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
                waited = time.monotonic() - began
                yield connection
            done = True
        finally:
            with self._lock:
                self._writes += 1
                self._rollbacks += not done
                self._lock_seconds += time.monotonic() - began if waited is None else waited

    def _begin_sqlite(self, connection: Connection) -> None:
        if not connection.get_execution_options().get("artfs_write"):
            connection.exec_driver_sql("BEGIN")
            return
        # SQLite's own busy handler sleeps for up to 100 ms at a time: beside writers that come back at once it was
        # seen not to get its turn in 10 s. Short random sleeps share the lock about evenly.
        deadline = time.monotonic() + LOCK_TIMEOUT
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                except exc.OperationalError as error:
                    if _sqlite_code(error.orig) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                        raise
                else:
                    return
                with self._lock:
                    self._busy += 1
                time.sleep(random.uniform(0.001, 0.01))  # noqa: S311 - no secret
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {LOCK_TIMEOUT * 1000:.0f}")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (exc.IntegrityError, exc.ProgrammingError, exc.DataError):
            raise  # artfs's own fault: nothing to do with reaching the database
        except (exc.DBAPIError, exc.TimeoutError) as error:
            with self._lock:
                self._failures += 1
            raise self._failure(error) from error

    def _failure(self, error: exc.DBAPIError | exc.TimeoutError) -> Exception:
        cause = error.orig if isinstance(error, exc.DBAPIError) else None
        why = str(cause or error).strip().splitlines()[0]
        if isinstance(cause, sqlite3.Error):
            # Where there is no room for the -shm file, SQLite says "disk I/O error".
            if _sqlite_code(cause) == sqlite3.SQLITE_FULL or (
                _sqlite_code(cause) == sqlite3.SQLITE_IOERR and self._disk_is_full()
            ):
                return DiskFull(where=self.redacted, why=why)
            if _sqlite_code(cause) == sqlite3.SQLITE_BUSY:
                why = f"another process has been writing for more than {LOCK_TIMEOUT:g} s"
        return RegistryUnavailable(registry=self.redacted, why=why)

    def _disk_is_full(self) -> bool:
        try:
            return os.statvfs(Path(self.url.database or "").parent).f_bavail == 0
        except OSError:
            return False

    def statistics(self) -> RegistryStatistics:
        """Counts so far."""
        with self._lock:
            return RegistryStatistics(
                self._reads, self._writes, self._rollbacks, self._busy, self._lock_seconds, self._failures
            )

    def close(self) -> None:
        """Close idle connections."""
        self.engine.dispose()

    def prepare(self, *, create: bool) -> str:
        """Create or upgrade the schema if ``create``, and answer the registry's id.

        Raises SchemaMismatch if a newer artfs wrote it, or an older one and not ``create``; RegistryUnavailable if
        there is no registry and not ``create``.
        """
        if self.is_sqlite:
            self._prepare_file(create=create)
        with self.read() as connection:
            revision = _revision(connection)
        if revision != schema.HEAD:
            if not create:
                self._refuse(revision)
            self._upgrade()
        with self.read() as connection:
            found: str = connection.execute(select(schema.registry.c.id)).scalar_one()
        return found

    def _prepare_file(self, *, create: bool) -> None:
        path = Path(self.url.database or "")
        if path.exists():
            return
        if not create:
            raise RegistryUnavailable(registry=self.redacted, why="there is no such file; run: artfs init")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite gives -wal and -shm the mode of the database.
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError as error:
            raise LocalIOError(path=path, why=error.strerror) from error

    def _refuse(self, revision: str | None) -> None:
        if revision is None:
            raise RegistryUnavailable(registry=self.redacted, why="it is empty; run: artfs init")
        raise SchemaMismatch(
            what=f"the registry {self.redacted}", found=revision, known=schema.HEAD, hint="run: artfs init"
        )

    def _upgrade(self) -> None:
        from artfs.registry import migrations

        with self.write() as connection:
            found = _revision(connection)  # again: another process may have been faster
            if found is not None and found not in migrations.revisions():
                raise SchemaMismatch(
                    what=f"the registry {self.redacted}",
                    found=found,
                    known=schema.HEAD,
                    hint="use a newer artfs",
                )
            if found != schema.HEAD:
                migrations.upgrade(connection)
                log.info("registry %s: schema %s -> %s", self.redacted, found, schema.HEAD)
            if connection.execute(select(schema.registry.c.id)).first() is None:
                connection.execute(insert(schema.registry).values(id=uuid.uuid4().hex, created_at=schema.Now()))


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(schema.REVISION_TABLE):
        return None
    found: str | None = connection.execute(text(f"SELECT version_num FROM {schema.REVISION_TABLE}")).scalar()
    return found


def sqlite_file(url: str) -> Path | None:
    """The file of an embedded registry, None for one on a server; raises ConfigurationError."""
    parsed = _parse(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):  # its text holds the URL, and with it perhaps a password
        raise ConfigurationError(why="registry_url is not a database URL") from None
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql+psycopg"}:
        raise ConfigurationError(
            why=f"the registry is kept in SQLite or PostgreSQL (psycopg), not in {parsed.drivername}"
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigurationError(why="a registry in SQLite needs a file: sqlite:////absolute/path")
    return parsed


def _redact(url: URL) -> str:
    hidden = {key: "***" for key in url.query if key.lower() in _HIDDEN}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        # As many connections as there are threads inside a transaction; five of them are kept.
        engine = create_engine(url, max_overflow=-1, connect_args={"timeout": LOCK_TIMEOUT})
        event.listen(engine, "connect", _connect_sqlite)
        return engine
    try:
        engine = create_engine(url, max_overflow=-1, pool_pre_ping=True, connect_args=_POSTGRESQL)
    except ImportError as error:
        raise MissingExtra(what="a registry in PostgreSQL", package="psycopg", extra="postgresql") from error
    event.listen(engine, "connect", _connect_postgresql)
    return engine


def _connect_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours: see Database._begin_sqlite
    connection.execute("PRAGMA foreign_keys = ON")
    # FULL: a commit that was reported survives a power cut. NORMAL would save one fsync a transaction.
    connection.execute("PRAGMA synchronous = FULL")
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:  # turning WAL on does not honour the busy timeout while another process does the same
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _sqlite_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _connect_postgresql(connection: Any, _record: object) -> None:
    connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT:g}s'")
    connection.commit()


def _sqlite_code(error: BaseException | None) -> int:
    # The low byte: extended codes such as SQLITE_BUSY_SNAPSHOT carry their kind above it.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


# A child must not touch a connection that its parent holds: SQLite's locks and PostgreSQL's protocol belong to one
# process. Its engines start anew, and the inherited pools are kept so that nothing in them is closed.
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_inherited: list[Pool] = []


def _forget_connections() -> None:
    for engine in _engines:
        _inherited.append(engine.pool)
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)
