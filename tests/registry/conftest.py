"""A registry a test: in SQLite, and also in PostgreSQL if ARTFS_TEST_POSTGRES is the URL of a server."""

from __future__ import annotations

import os
import uuid

import pytest
from homes import give_registry
from shelf import Shelf
from sqlalchemy import create_engine, make_url, text

from artfs.registry import Registry
from artfs.registry.connection import sqlite_file

SERVER = os.environ.get("ARTFS_TEST_POSTGRES")


@pytest.fixture(params=["sqlite", "postgresql"] if SERVER else ["sqlite"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/home/registry.db"
        return
    name = f"artfs_{uuid.uuid4().hex}"
    engine = create_engine(make_url(SERVER).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(SERVER).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def registry(url):
    if file := sqlite_file(url):
        give_registry(file)
    opened = Registry.open(url)
    yield opened
    opened.close()


@pytest.fixture
def shelf(registry):
    return Shelf(registry)
