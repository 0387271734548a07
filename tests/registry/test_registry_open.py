import multiprocessing
import os
import re
import sqlite3
import stat
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from shelf import MNIST, Shelf
from sqlalchemy import create_engine, text

from artfs.errors import ConfigurationError, DiskFull, RegistryUnavailable, SchemaMismatch
from artfs.names import CollectionName
from artfs.registry import Registry, connection, migrations, schema


def test_migrations_end_in_the_schema_of_the_module(registry):
    with registry.database.write() as db:
        context = MigrationContext.configure(
            db, opts={"version_table": schema.REVISION_TABLE, "compare_server_default": True}
        )
        assert compare_metadata(context, schema.metadata) == []
    assert migrations.revisions() >= {schema.HEAD}


def test_migrations_make_the_same_sqlite_tables_to_the_letter(tmp_path):
    # compare_metadata looks at neither CHECK constraints nor AUTOINCREMENT nor WITHOUT ROWID.
    Registry.open(f"sqlite:///{tmp_path}/migrated.db").close()
    engine = create_engine(f"sqlite:///{tmp_path}/created.db")
    schema.metadata.create_all(engine)
    engine.dispose()

    def ddl(file):
        db = sqlite3.connect(tmp_path / file)
        rows = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        db.close()
        return {
            name: sorted(re.sub(r"[\s,]+$", "", line.strip()) for line in sql.splitlines())
            for name, sql in rows
            if name not in {schema.REVISION_TABLE, "sqlite_sequence"}
        }

    assert ddl("migrated.db") == ddl("created.db")


def test_reopening_finds_the_same_registry(registry, url):
    again = Registry.open(url, create=False)
    assert again.id == registry.id
    assert len(again.id) == 32
    again.close()


def test_sqlite_files_are_private(tmp_path):
    registry = Registry.open(f"sqlite:///{tmp_path}/a/registry.db")
    Shelf(registry).log()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    files = list((tmp_path / "a").iterdir())
    assert {file.name for file in files} == {"registry.db", "registry.db-wal", "registry.db-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    registry.close()


def test_a_missing_registry_is_not_created_unasked(tmp_path):
    with pytest.raises(RegistryUnavailable, match="artfs init"):
        Registry.open(f"sqlite:///{tmp_path}/none/registry.db", create=False)
    assert not (tmp_path / "none").exists()


def test_a_newer_schema_is_refused_and_left_alone(registry, url):
    with registry.database.write() as db:
        db.execute(text(f"UPDATE {schema.REVISION_TABLE} SET version_num = '9999'"))
    for create in (True, False):
        with pytest.raises(SchemaMismatch, match="9999"):
            Registry.open(url, create=create)
    with registry.database.write() as db:
        db.execute(text(f"UPDATE {schema.REVISION_TABLE} SET version_num = '{schema.HEAD}'"))
    Registry.open(url).close()


def test_what_is_not_a_database_is_reported(tmp_path):
    (tmp_path / "registry.db").write_bytes(b"no database" * 1000)
    with pytest.raises(RegistryUnavailable, match="not a database"):
        Registry.open(f"sqlite:///{tmp_path}/registry.db")


@pytest.mark.parametrize(
    "bad", ["", "nonsense", "mysql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "::u:secret@"]
)
def test_unusable_urls(bad):
    with pytest.raises(ConfigurationError) as caught:
        Registry.open(bad)
    assert "secret" not in str(caught.value)


def test_an_unreachable_server_is_reported_without_its_password():
    pytest.importorskip("psycopg")
    with pytest.raises(RegistryUnavailable) as caught:
        Registry.open("postgresql://me:secret@127.0.0.1:1/artfs?sslpassword=secret")
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_writer_that_waits_too_long_is_told_so(url, registry, monkeypatch):
    monkeypatch.setattr(connection, "LOCK_TIMEOUT", 0.2)
    other = Registry.open(url)
    with registry.database.write(), pytest.raises(RegistryUnavailable):
        Shelf(other).begin()
    assert other.statistics().failures == 1
    Shelf(other).begin()
    other.close()


def test_a_full_disk_is_reported_as_such(tmp_path):
    registry = Registry.open(f"sqlite:///{tmp_path}/registry.db")
    with registry.database.read() as db:
        db.exec_driver_sql("PRAGMA max_page_count = 10")  # of this pooled connection, which the next call gets
    with pytest.raises(DiskFull):
        Shelf(registry).pack(None, *range(20_000))
    registry.close()


def test_readers_do_not_wait_for_a_writer(registry, shelf):
    shelf.log()
    seen = []
    with registry.database.write():
        reader = threading.Thread(target=lambda: seen.append(registry.resolve(MNIST.at("latest"))))
        reader.start()
        reader.join(10)
        assert [version.index for version in seen] == [0]


def test_statistics_count_transactions(registry, shelf):
    before = registry.statistics()
    shelf.log()
    registry.resolve(MNIST.at("v0"))
    with pytest.raises(LookupError):
        registry.renew("nothing")
    after = registry.statistics()
    assert (after.reads - before.reads, after.writes - before.writes) == (1, 3)
    assert after.rollbacks - before.rollbacks == 1
    assert after.failures == 0


def test_time_is_the_databases(registry, shelf):
    before = registry.now()
    created = shelf.log().version.created_at
    assert before <= created <= registry.now()
    assert created.utcoffset().total_seconds() == 0


def _open_and_log(url, start, name):
    start.wait()
    registry = Registry.open(url)
    result = (registry.id, Shelf(registry).log(name, CollectionName("acme", "vision", name)).version.index)
    registry.close()
    return result


def test_processes_that_create_one_registry_at_once_agree(url):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(3) as pool:
        start = manager.Barrier(3)
        results = pool.starmap(_open_and_log, [(url, start, f"c{i}") for i in range(3)])
    assert len({registry_id for registry_id, _ in results}) == 1


def test_a_forked_child_works_beside_its_parent(registry, shelf):
    shelf.log("a")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if shelf.log("b").version.index == 1 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert shelf.log("c").version.index == 2
