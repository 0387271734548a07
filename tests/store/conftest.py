"""Stores to test: a directory, and a bucket on a real S3 server."""

from __future__ import annotations

import uuid

import pytest

from artfs.store import open_store


@pytest.fixture
def local_store(tmp_path):
    store = open_store((tmp_path / "store").as_uri(), endpoint=None, request_timeout=5)
    store.create()
    return store


@pytest.fixture(scope="session")
def bucket(s3_server):
    return s3_server.make_bucket()


@pytest.fixture
def s3_store(s3_environment, bucket):
    return open_store(f"s3://{bucket}/some/{uuid.uuid4().hex}", endpoint=None, request_timeout=5)


@pytest.fixture(params=["file", "s3"])
def store(request):
    return request.getfixturevalue("local_store" if request.param == "file" else "s3_store")


@pytest.fixture
def flaky_store(s3_environment, bucket, s3_proxy):
    """A bucket behind a proxy that breaks things, with a short request timeout."""
    return open_store(f"s3://{bucket}/{uuid.uuid4().hex}", endpoint=s3_proxy.url, request_timeout=0.5)
