"""The pack format, its index and its checksums."""

from __future__ import annotations

import hashlib
import struct

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from store_clock import soon

from artfs.catalog.layout import BLOCK, PACK_DATA
from artfs.errors import CorruptPack, ObjectNotFound
from artfs.store import PackBuilder, read_index


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def built(*contents: bytes):
    builder = PackBuilder()
    for content in contents:
        builder.append(sha(content), [content])
    return builder.seal()


def stored(store, *contents: bytes):
    pack = built(*contents)
    store.put(pack.key, pack.buffers, deadline=soon())
    return pack


def test_the_bytes_of_a_pack_are_as_documented():
    pack = built(b"hello", b"worlds")
    whole = b"".join(pack.buffers)
    index = (
        sha(b"hello") + struct.pack("<QQ", 0, 5)
        + sha(b"worlds") + struct.pack("<QQ", 5, 6)
    )  # fmt: skip
    footer = b"artfpack" + struct.pack("<HHIQQ", 1, 0, 2, 11, xxhash.xxh3_64_intdigest(index)) + bytes(24)
    assert whole == b"helloworlds" + index + footer + struct.pack("<Q", xxhash.xxh3_64_intdigest(footer))
    assert len(footer) == 56
    assert pack.stored_size == len(whole)
    assert pack.key == f"packs/{pack.key[6:8]}/{pack.key[9:]}"
    assert pack.key[9:11] == pack.key[6:8]
    assert len(pack.key[9:]) == 32


def test_keys_are_never_the_same():
    assert len({PackBuilder().key for _ in range(100)}) == 100


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3 * BLOCK // 2), min_size=1, max_size=6), st.integers(1, 300_000))
def test_blocks_are_checksummed_wherever_extents_and_chunks_end(lengths, chunk):
    contents = [bytes([i + 1]) * length for i, length in enumerate(lengths)]
    builder = PackBuilder()
    offsets = []
    for content in contents:
        buffer = bytearray(chunk)  # used again for every chunk, as a reader of files does

        def chunks(content=content, buffer=buffer):
            for start in range(0, len(content), chunk):
                piece = content[start : start + chunk]
                buffer[: len(piece)] = piece
                yield memoryview(buffer)[: len(piece)]

        offsets.append(builder.append(sha(content), chunks()))
    pack = builder.seal()
    data = b"".join(contents)
    assert b"".join(pack.buffers)[: pack.size] == data
    assert pack.size == len(data)
    expected = [xxhash.xxh3_64_intdigest(data[i : i + BLOCK]) for i in range(0, len(data), BLOCK)]
    assert list(struct.unpack(f"<{len(expected)}Q", pack.checksums)) == expected
    for extent, content, offset in zip(pack.extents, contents, offsets, strict=True):
        assert (extent.pack, extent.offset, extent.sha256) == (pack.key, offset, sha(content))
        assert data[extent.offset : extent.offset + extent.length] == content


def test_a_pack_holds_64_mib_and_not_a_byte_more():
    builder = PackBuilder()
    builder.append(sha(b""), [bytes(PACK_DATA)])
    assert builder.room() == 0
    with pytest.raises(ValueError, match="does not fit"):
        builder.append(sha(b"x"), [b"x"])


def test_the_index_of_a_stored_pack(store):
    pack = stored(store, b"a", b"bb", b"c" * 3000)
    assert read_index(store, pack.key, soon()) == pack.extents


def test_an_index_larger_than_the_first_read(local_store):
    pack = stored(local_store, *(str(i).encode() for i in range(5000)))
    assert read_index(local_store, pack.key, soon()) == pack.extents


def test_a_pack_that_is_not_there(store):
    with pytest.raises(ObjectNotFound):
        read_index(store, "packs/no", soon())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_changed_byte_of_index_or_footer_is_noticed(data):
    pack = built(b"one", b"two", b"three")
    whole = bytearray(b"".join(pack.buffers))
    position = data.draw(st.integers(pack.size, len(whole) - 1))
    whole[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptPack):
        read_index(_Memory(whole), pack.key, soon())


@given(st.integers(0, 200))
def test_a_truncated_pack_is_noticed(length):
    whole = b"".join(built(b"one", b"two").buffers)
    if length < len(whole):
        with pytest.raises(CorruptPack):
            read_index(_Memory(whole[:length]), "packs/x", soon())


def test_a_format_from_the_future_is_named(local_store):
    whole = bytearray(b"".join(built(b"one").buffers))
    whole[-64 + 8] = 2
    whole[-8:] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(whole[-64:-8])))
    local_store.put("packs/x", whole, deadline=soon())
    with pytest.raises(CorruptPack, match="format 2"):
        read_index(local_store, "packs/x", soon())


class _Memory:
    """A store of one object, for many examples a second."""

    url = "memory"

    def __init__(self, whole):
        self._whole = bytes(whole)

    def head(self, key, *, deadline):
        return len(self._whole)

    def get_range(self, key, start, end, *, deadline):
        return self._whole[start:end]
