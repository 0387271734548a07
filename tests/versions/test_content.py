"""Reading a version: every byte is the source's, whatever the cache holds; damage is found, never handed on."""

import logging
import os
import random
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from homes import make_tree, open_repository, soon, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artfs.cache import Cache
from artfs.catalog.layout import BLOCK, NEIGHBOURHOOD
from artfs.errors import ArtfsError, CorruptCatalog, CorruptPack, ObjectNotFound, VersionNotFound
from artfs.names import CollectionName
from artfs.versions import ingest
from artfs.versions.content import ContentReader
from artfs.versions.log import log_path

COLLECTION = CollectionName("acme", "vision", "mnist")


def source_content():
    """Many small files that share packs, a large one of extents that lie apart, and the corners in between."""
    chance = random.Random(7)
    content = {f"small/{i:03}": chance.randbytes(chance.choice([0, 1, 100, 5_000, 60_000])) for i in range(120)}
    large = chance.randbytes(19 * BLOCK + 12_345)
    content["a-large"] = large
    content["m-mixed"] = large[4 * BLOCK :] + chance.randbytes(70_000) + large[: 4 * BLOCK]  # slices of the first
    content["z-exactly"] = chance.randbytes(2 * BLOCK)
    content["zz-edge"] = chance.randbytes(8 * BLOCK)
    return content


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A logged version that no test changes, with its content."""
    home = tmp_path_factory.mktemp("content")
    content = source_content()
    with pytest.MonkeyPatch.context() as patch, open_repository(home / "home") as repository:
        patch.setattr(ingest, "PACK_DATA", 1 << 20)  # a file of 19 MiB is one of 20 extents
        version = log_path(repository, make_tree(home / "src", content), COLLECTION, "dataset").version
        with closing(repository.catalog(version)) as catalog:
            assert len(catalog.slices(catalog.resolve("a-large"), 0, 1 << 40)) == 20
            yield repository, catalog, content


@pytest.fixture
def fresh(shelf, tmp_path):
    """Makes readers with a cache of their own."""
    repository, catalog, _ = shelf
    caches = []

    def make(limit=1 << 40):
        caches.append(Cache(tmp_path / f"cache{len(caches)}", limit=limit, free=0))
        return ContentReader(catalog, caches[-1], repository.store, lambda: repository.references), caches[-1]

    make.caches = caches
    yield make
    for cache in caches:
        cache.close()


def read(reader, node, offset, size):
    """As the adapter does: at once if that goes, else waiting."""
    data = reader.try_read(node, offset, size)
    return bytes(reader.read(node, offset, size, soon()) if data is None else data)


@pytest.fixture(scope="module")
def ordered(tmp_path_factory):
    """A version of many small files, 72 MiB together, and what makes readers of it with an empty cache."""
    home = tmp_path_factory.mktemp("ordered")
    chance = random.Random(11)
    content = {f"{i // 24:02}/{i:03}": chance.randbytes(512 << 10) for i in range(144)}
    caches = []
    with open_repository(home / "home") as repository:
        version = log_path(repository, make_tree(home / "src", content), COLLECTION, "dataset").version
        with closing(repository.catalog(version)) as catalog:

            def fresh_reader():
                caches.append(Cache(home / f"cache{len(caches)}", limit=1 << 40, free=0))
                return ContentReader(catalog, caches[-1], repository.store, lambda: repository.references), caches[-1]

            yield catalog, content, fresh_reader
            for cache in caches:
                cache.close()


names = st.sampled_from(sorted(source_content()))
large_names = st.sampled_from(["a-large", "m-mixed", "z-exactly", "zz-edge"])
near_blocks = st.builds(lambda block, more: max(0, block * BLOCK + more), st.integers(0, 24), st.integers(-3, 3))
offsets = st.one_of(st.integers(0, 24 * BLOCK), near_blocks, st.integers(0, 70_000))
sizes = st.one_of(st.integers(0, 5), st.integers(0, 200_000), st.integers(BLOCK - 2, 4 * BLOCK))
reads = st.lists(st.tuples(st.one_of(names, large_names), offsets, sizes), min_size=1, max_size=8)


@pytest.mark.parametrize("limit", [1 << 40, 3 << 20], ids=["cold to cached", "while evicting"])
def test_any_read_gives_the_bytes_of_the_source(shelf, fresh, limit):
    _, catalog, content = shelf
    nodes = {name: catalog.resolve(name) for name in content}

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(reads, st.booleans())
    def check(asked, anew):
        if anew:  # what is cached then is what these reads bring
            state[0], state[1] = fresh(limit)
        for name, offset, size in asked:
            got = read(state[0], nodes[name], offset, size)
            assert got == content[name][offset : offset + size], (name, offset, size)

    state = list(fresh(limit))
    check()
    evicted = sum(cache.statistics().evicted_files for cache in fresh.caches)
    assert (evicted > 0) == (limit < 1 << 30)


def test_sequential_reads_of_every_file(shelf, fresh):
    _, catalog, content = shelf
    reader, _ = fresh()
    for name, data in content.items():
        node = catalog.resolve(name)
        got = b"".join(read(reader, node, offset, 128 << 10) for offset in range(0, len(data) + 1, 128 << 10))
        assert got == data, name
    assert all(read(reader, catalog.resolve(name), len(content[name]) + 5, 10) == b"" for name in content)
    assert reader.statistics().streams == 2  # those over a neighbourhood


def test_small_files_share_requests(shelf, fresh):
    _, catalog, content = shelf
    reader, cache = fresh()
    for name, data in content.items():
        if name.startswith("small/"):
            assert read(reader, catalog.resolve(name), 0, 1 << 20) == data
    assert cache.statistics().requests <= 2


def rests(cache):
    """Whether nothing is fetched in the background, nor about to be."""
    workers = cache._fetcher._background
    return not workers._jobs and workers._idle == len(workers._threads) and not cache.statistics().flights


def test_small_files_read_in_order_are_fetched_ahead_and_shuffled_ones_are_not(ordered):
    catalog, content, fresh_reader = ordered
    names = sorted(content)
    reader, cache = fresh_reader()
    waited = []
    for name in names:
        before = cache.statistics().reads_fetched
        assert read(reader, catalog.resolve(name), 0, 1 << 20) == content[name]
        if cache.statistics().reads_fetched > before:
            waited.append(name)
        wait_until(lambda: rests(cache), "what was asked for is there")
    # One wait for the first three neighbourhoods, then the next are there before they are read.
    assert len(waited) == 3
    assert cache.statistics().bytes_fetched == sum(map(len, content.values()))
    reader, cache = fresh_reader()
    for name in (names[0], names[-1], names[len(names) // 2]):
        read(reader, catalog.resolve(name), 0, 1 << 20)
    wait_until(lambda: rests(cache), "what was asked for is there")
    assert cache.statistics().bytes_fetched <= 3 * NEIGHBOURHOOD


def test_a_prefetched_file_needs_no_store(shelf, fresh):
    repository, catalog, content = shelf
    reader, cache = fresh()
    for name in ("small/007", "m-mixed"):
        assert reader.prefetch(catalog.resolve(name), None)
    wait_until(lambda: reader.cached(catalog.resolve("m-mixed")) == len(content["m-mixed"]), "it is there")
    wait_until(lambda: reader.cached(catalog.resolve("small/007")) == len(content["small/007"]), "it is there")
    before = repository.store.statistics().requests
    for name in ("small/007", "m-mixed"):
        assert read(reader, catalog.resolve(name), 0, len(content[name])) == content[name]
    assert repository.store.statistics().requests == before
    assert cache.statistics().reads_fetched == 0


def test_threads_read_at_once_while_the_cache_evicts(shelf, fresh):
    _, catalog, content = shelf
    reader, cache = fresh(2 << 20)
    failures = []

    def work(seed):
        chance = random.Random(seed)
        try:
            for _ in range(60):
                name = chance.choice(list(content))
                offset, size = chance.randrange(len(content[name]) + 1), chance.randrange(1, 300_000)
                got = read(reader, catalog.resolve(name), offset, size)
                assert got == content[name][offset : offset + size], (name, offset, size)
        except (AssertionError, ArtfsError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []

    def within_its_limit():
        cache.evict()
        return cache.info().size <= 2 << 20

    wait_until(within_its_limit, "what was read ahead has arrived, and the cache is within its limit")


def test_a_read_at_once_touches_no_store(shelf, fresh):
    repository, catalog, content = shelf
    reader, _ = fresh()
    before = repository.store.statistics().requests
    assert all(reader.try_read(catalog.resolve(name), 0, 10) is None for name in content if content[name])
    assert reader.try_read(catalog.resolve("a-large"), 1 << 40, 10) == b""
    assert repository.store.statistics().requests == before
    reader.read(catalog.resolve("z-exactly"), 0, 2 * BLOCK, soon())
    assert bytes(reader.try_read(catalog.resolve("z-exactly"), 5, 100)) == content["z-exactly"][5:105]
    assert reader.cached(catalog.resolve("z-exactly")) == 2 * BLOCK
    assert reader.cached(catalog.resolve("small/000")) in {0, len(content["small/000"])}


# -- damage


@pytest.fixture
def damaged(tmp_path):
    """A home with one version of a small and a large file, for tests that damage it."""
    content = {"a": b"a" * 1000, "large": os.urandom(12 * BLOCK)}
    with open_repository(tmp_path / "home") as repository:
        version = log_path(repository, make_tree(tmp_path / "src", content), COLLECTION, "dataset").version
        repository.cache.clean()
        yield repository, version, content


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def only(repository, kind):
    """The one object of a kind in the store."""
    (path,) = (path for path in (repository.settings.data_dir / "store" / kind).rglob("*") if path.is_file())
    return path


def test_a_damaged_pack_fails_the_reads_of_its_block_and_no_others(damaged, caplog):
    repository, version, content = damaged
    flip(only(repository, "packs"), 1000 + 10 * BLOCK)
    with closing(repository.catalog(version)) as catalog:
        reader = repository.reader(catalog)
        node = catalog.resolve("large")
        assert bytes(reader.read(node, 0, 100, soon())) == content["large"][:100]
        with pytest.raises(CorruptPack, match=r"pack packs/.* is damaged in the store at bytes .*checksum") as caught:
            reader.read(node, 10 * BLOCK, 100, soon())
        assert caught.value.exit_code == 7
        assert caplog.text == ""  # it is for the caller to log what it raises, once
        assert bytes(reader.read(node, 8 * BLOCK, BLOCK, soon())) == content["large"][8 * BLOCK : 9 * BLOCK]


def test_a_truncated_pack(damaged):
    repository, version, _ = damaged
    path = only(repository, "packs")
    os.truncate(path, 1000)
    with closing(repository.catalog(version)) as catalog, pytest.raises(ArtfsError, match="packs/") as caught:
        repository.reader(catalog).read(catalog.resolve("large"), 0, 100, soon())
    assert caught.value.exit_code == 7


def test_a_pack_that_is_gone(damaged):
    repository, version, _ = damaged
    only(repository, "packs").unlink()
    with (
        closing(repository.catalog(version)) as catalog,
        pytest.raises(ObjectNotFound, match="not in the object store"),
    ):
        repository.reader(catalog).read(catalog.resolve("large"), 0, 100, soon())


def test_a_damaged_cache_file_is_fetched_again(damaged, caplog):
    repository, version, content = damaged
    with closing(repository.catalog(version)) as catalog:
        repository.reader(catalog).read(catalog.resolve("large"), 0, BLOCK, soon())
    (part,) = (p for p in (repository.settings.cache_dir / "parts").rglob("*") if p.is_file())
    flip(part, 4096 + 5000)
    flip(part, 32)  # another boot: nothing is trusted
    with open_repository(repository.settings.data_dir) as again, closing(again.catalog(version)) as catalog:
        found = again.reader(catalog).read(catalog.resolve("large"), 0, BLOCK, soon())
        assert bytes(found) == content["large"][:BLOCK]
        assert "is damaged; it is fetched again" in caplog.text


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 5000), lambda path: path.write_bytes(b"x" * 20_000)])
def test_a_damaged_catalog_in_the_cache_is_fetched_again(damaged, caplog, damage):
    repository, version, _ = damaged
    repository.catalog(version).close()
    (cached,) = (repository.settings.cache_dir / "catalogs").iterdir()
    cached.chmod(0o600)
    damage(cached)
    with closing(repository.catalog(version)) as catalog:
        assert catalog.file_count == 2
    (record,) = caplog.records
    assert "the catalog acme/vision/mnist:v0 is damaged" in record.message
    assert record.levelno == logging.WARNING


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(b"not zstd at all"),
        lambda path: path.write_bytes(b""),
    ],
    ids=["truncated", "garbage", "empty"],
)
def test_a_damaged_catalog_in_the_store(damaged, damage):
    repository, version, _ = damaged
    damage(only(repository, "catalogs"))
    with pytest.raises(CorruptCatalog, match=r"the catalog catalogs/.*\.zst is damaged"):
        repository.catalog(version)
    assert not list((repository.settings.cache_dir / "catalogs").iterdir())


def test_another_catalog_in_its_place(damaged, tmp_path):
    repository, version, _ = damaged
    other = log_path(repository, make_tree(tmp_path / "other", {"x": b"1"}), COLLECTION, "dataset").version
    store = repository.settings.data_dir / "store"
    (store / version.catalog_key).write_bytes((store / other.catalog_key).read_bytes())
    with pytest.raises(CorruptCatalog, match="is not what was logged"):
        repository.catalog(version)


def test_a_version_that_is_being_written_has_no_catalog(repository, collection):
    version_id = repository.registry.begin(collection, "dataset", origin="log")
    with pytest.raises(VersionNotFound, match="still being written"):
        repository.catalog(repository.registry.get(version_id))


# -- processes


DOWNLOAD = """
import sys
from pathlib import Path
from homes import settings_of
from artfs.names import CollectionName
from artfs.versions.download import download
from artfs.versions.repository import Repository
home, store, endpoint, target = sys.argv[1:]
with Repository(settings_of(Path(home), store_url=store, store_endpoint=endpoint)) as repository:
    version = repository.resolve(CollectionName("acme", "vision", "mnist").at("latest")).version
    print("ready", flush=True)
    sys.stdin.readline()
    download(repository, repository.catalog(version), target)
"""


def test_processes_that_read_cold_at_once_fetch_each_block_once(tmp_path, s3_environment, s3_proxy):
    content = {f"d/{i:03}": os.urandom(30_000) for i in range(300)} | {"large": os.urandom(20 * BLOCK)}
    store = f"s3://{s3_environment.make_bucket()}/artifacts"
    with open_repository(tmp_path / "home", store_url=store, store_endpoint=s3_environment.endpoint_url) as repository:
        log_path(repository, make_tree(tmp_path / "src", content), COLLECTION, "dataset")
        repository.cache.clean()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    processes = []
    try:
        for target in ("one", "two"):
            command = [sys.executable, "-c", DOWNLOAD, tmp_path / "home", store, s3_proxy.url, tmp_path / target]
            processes.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.wait(60) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
    fetched = [
        (request.path, block)
        for request in s3_proxy.requests
        if request.method == "GET" and "/packs/" in request.path
        for block in range(request.range[0] // BLOCK, -(-request.range[1] // BLOCK))
    ]
    assert len(fetched) == len(set(fetched)) == -(-(300 * 30_000 + 20 * BLOCK) // BLOCK)
    assert sum(1 for request in s3_proxy.requests if "/catalogs/" in request.path) == 1
    for target in ("one", "two"):
        assert (tmp_path / target / "large").read_bytes() == content["large"]
        assert (tmp_path / target / "d/299").read_bytes() == content["d/299"]
