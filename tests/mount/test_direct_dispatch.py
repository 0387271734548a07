"""From the bytes of a request to those of its reply, below any kernel."""

import errno
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_tree import MTIME, BlockingTree, HugeTree, MemoryTree

from artfs.catalog import Kind
from artfs.errors import DeadlineExceeded, NotFound
from artfs.fuse import MountOptions
from artfs.fuse.direct import protocol
from artfs.fuse.direct.ahead import Ahead
from artfs.fuse.direct.board import LISTED, UNIQUE, Board
from artfs.fuse.direct.dispatch import Deferred, Dispatcher, Interrupt
from artfs.fuse.direct.protocol import ATTR_OUT, DIRENTPLUS, ENTRY_OUT, GETXATTR_IN, IN_HEADER, READ_IN, Opcode
from artfs.vfs.tree import Attributes, DirectoryEntry

CONTENT = {"f": b"content", "d/g": b"", "l": "f", "big": bytes(range(256)) * 1000}


@pytest.fixture(scope="module")
def board():
    made = Board(1)
    yield made
    made.close()


def dispatcher(board, tree, **options):
    return Dispatcher(tree, MountOptions(**options), board.slots[0], board.statistics, board.is_news, Ahead(1), 0)


@pytest.fixture
def dispatch(board):
    return dispatcher(board, MemoryTree(CONTENT, xattrs={2: {"user.a": b"value"}}), uid=7, gid=8)


def request(opcode, inode=1, body=b"", unique=42, pid=0):
    return IN_HEADER.pack(IN_HEADER.size + len(body), opcode, unique, inode, 0, 0, pid, 0, 0) + body


def reading(offset, size):
    return READ_IN.pack(0, offset, size, 0, 0, 0, 0)


def parsed(reply):
    """Error and content of a reply, after a look at its form."""
    raw = b"".join(bytes(part) for part in reply)
    length, error, unique = protocol.OUT_HEADER.unpack_from(raw)
    assert length == len(raw)
    assert -4096 < error <= 0
    assert not error or length == protocol.OUT_HEADER.size
    return unique, -error, raw[protocol.OUT_HEADER.size :]


def ask(dispatch, *args, **kwargs):
    answer = dispatch.answer(memoryview(request(*args, **kwargs)))
    if isinstance(answer, Deferred):
        answer = answer.run(1e9)
    unique, error, content = parsed(answer)
    assert unique == kwargs.get("unique", 42)
    return error or content


def test_lookup_finds_and_does_not(dispatch):
    found = ENTRY_OUT.unpack(ask(dispatch, Opcode.LOOKUP, 1, b"f\0"))
    assert found[:2] == (2, 0)
    assert found[2] == 365 * 86400
    assert found[6:9] == (2, 7, 1)
    assert found[9] * 10**9 + found[12] == MTIME
    assert found[17:19] == (7, 8)
    absent = ENTRY_OUT.unpack(ask(dispatch, Opcode.LOOKUP, 1, b"absent\0"))
    assert (absent[0], absent[2]) == (0, 3600)
    assert ask(dispatch, Opcode.LOOKUP, 1, b"n" * 256 + b"\0") == errno.ENAMETOOLONG
    assert ask(dispatch, Opcode.LOOKUP, 1, b"\xff\0") == errno.ENOENT
    assert ask(dispatch, Opcode.LOOKUP, 77, b"f\0") == errno.ENOENT


def test_content_and_attributes(dispatch):
    assert ask(dispatch, Opcode.READ, 2, reading(1, 3)) == b"ont"
    assert ask(dispatch, Opcode.READ, 2, reading(7, 3)) == b""
    assert ask(dispatch, Opcode.READLINK, 5) == b"f"
    assert ATTR_OUT.unpack(ask(dispatch, Opcode.GETATTR, 6, bytes(16)))[4] == 256_000
    assert ask(dispatch, Opcode.GETATTR, 99, bytes(16)) == errno.ENOENT
    assert len(ask(dispatch, Opcode.STATFS)) == 80


def test_what_the_kernel_does_without(dispatch):
    for opcode in (Opcode.OPEN, Opcode.OPENDIR, Opcode.ACCESS, Opcode.FLUSH, Opcode.FSYNC, Opcode.STATX, Opcode.LSEEK):
        assert ask(dispatch, opcode, 1, bytes(40)) == errno.ENOSYS
    for opcode in (Opcode.WRITE, Opcode.MKDIR, Opcode.SETATTR, Opcode.RENAME2, Opcode.CREATE, Opcode.TMPFILE):
        assert ask(dispatch, opcode, 1, bytes(40)) == errno.EROFS
    for opcode in (Opcode.RELEASEDIR, Opcode.DESTROY):
        assert ask(dispatch, opcode, 1, bytes(24)) == b""
    for opcode in (Opcode.FORGET, Opcode.BATCH_FORGET):
        assert dispatch.answer(request(opcode, 1, bytes(8))) is None
    assert dispatch.answer(request(Opcode.INTERRUPT, 0, struct.pack("Q", 99))) == Interrupt(99)


def test_listings_of_what_changes_are_not_kept(board):
    class Changing(MemoryTree):
        def attributes(self, inode, deadline):
            described = super().attributes(inode, deadline)
            return described._replace(lifetime=5.0) if inode == 1 else described

    dispatch = dispatcher(board, Changing(CONTENT))
    assert protocol.OPEN_OUT.unpack(ask(dispatch, Opcode.OPENDIR, 1, bytes(8)))[1] == 0
    assert protocol.OPEN_OUT.unpack(ask(dispatch, Opcode.OPENDIR, 3, bytes(8)))[1] == 1 << 3 | 1 << 1


def listed(dispatch, inode, size, *, making=False):
    """Names in a directory, page after page; ``making``: with a moment for the next one after each."""
    names, cookie = [], 0
    while content := ask(dispatch, Opcode.READDIRPLUS, inode, reading(cookie, size)):
        assert len(content) <= size
        while content:
            entry = DIRENTPLUS.unpack_from(content)
            cookie, length, kind = entry[-3:]
            assert entry[0] == entry[6] == entry[-4]
            assert kind == entry[15] >> 12
            names.append(content[DIRENTPLUS.size : DIRENTPLUS.size + length].decode())
            content = content[-(-(DIRENTPLUS.size + length) // 8) * 8 :]
        if making:
            dispatch.list_ahead()
    return names


@pytest.mark.parametrize("making", [False, True])
@pytest.mark.parametrize("size", [200, 4096, 1 << 20])
def test_a_listing_in_pieces_is_whole(board, size, making):
    dispatch = dispatcher(board, HugeTree(1000))
    before = board.slots[0].words[LISTED]
    assert listed(dispatch, 1, size, making=making) == [f"{number:06d}" for number in range(1000)]
    assert (board.slots[0].words[LISTED] > before) is making


def test_a_walk_finds_the_next_directory_made(board):
    """Directories whose listings end where the next directory begins: what find goes through."""
    dispatch = dispatcher(board, Walked({}))
    before = board.slots[0].words[LISTED]
    assert listed(dispatch, 2, 4096, making=True) == ["a", "b"]
    assert listed(dispatch, 5, 4096, making=True) == ["a", "b"]
    assert board.slots[0].words[LISTED] == before + 1
    assert board.slots[0].words[UNIQUE] == 0


class Walked(MemoryTree):
    """In path order, as a version is: 1 the root, 2 ``d`` with 3 and 4, 5 ``e`` with 6 and 7."""

    def attributes(self, inode, deadline):
        if inode not in {1, 2, 5}:
            raise NotFound(what="inode", name=inode)
        return Attributes(inode, Kind.DIRECTORY, 0o755, 0, 0)

    def list(self, inode, cookie, deadline):
        for child, name in ((inode + 1, "a"), (inode + 2, "b")):
            if child > cookie:
                yield DirectoryEntry(child, name, child, Kind.FILE, 0o644, 1, 0)


def test_who_hangs_while_making_a_page_is_seen(board):
    seen = []

    class Watched(HugeTree):
        def list(self, inode, cookie, deadline):
            seen.append(board.slots[0].words[UNIQUE])
            return super().list(inode, cookie, deadline)

    listed(dispatcher(board, Watched(100)), 1, 4096, making=True)
    assert {unique & 1 for unique in seen} == {0, 1}
    assert board.slots[0].words[UNIQUE] == 0


def test_nothing_is_made_ahead_of_what_changes(board):
    class Changing(HugeTree):
        def attributes(self, inode, deadline):
            return super().attributes(inode, deadline)._replace(lifetime=5.0)

    before = board.slots[0].words[LISTED]
    assert len(listed(dispatcher(board, Changing(100)), 1, 4096, making=True)) == 100
    assert board.slots[0].words[LISTED] == before


def test_a_page_that_cannot_be_made_ahead_is_made_for_who_asks(board, caplog):
    class Failing(HugeTree):
        failing = False

        def list(self, inode, cookie, deadline):
            if self.failing:
                raise OSError(errno.EIO, "no")
            return super().list(inode, cookie, deadline)

    tree = Failing(100)
    dispatch = dispatcher(board, tree)
    first = ask(dispatch, Opcode.READDIRPLUS, 1, reading(0, 4096))
    cookie = DIRENTPLUS.unpack_from(first, (len(first) // 160 - 1) * 160)[-3]
    tree.failing = True
    dispatch.list_ahead()
    assert dispatch.upcoming is None
    tree.failing = False
    assert ask(dispatch, Opcode.READDIRPLUS, 1, reading(cookie, 4096))
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_extended_attributes_have_the_sizes_of_the_system_call(dispatch):
    def sized(size, name=b"user.a\0"):
        return GETXATTR_IN.pack(size, 0) + name

    assert ask(dispatch, Opcode.GETXATTR, 2, sized(0)) == struct.pack("II", 5, 0)
    assert ask(dispatch, Opcode.GETXATTR, 2, sized(5)) == b"value"
    assert ask(dispatch, Opcode.GETXATTR, 2, sized(4)) == errno.ERANGE
    assert ask(dispatch, Opcode.GETXATTR, 2, sized(5, b"user.b\0")) == errno.ENODATA
    assert ask(dispatch, Opcode.GETXATTR, 2, sized(5, b"security.capability\0")) == errno.ENODATA
    assert ask(dispatch, Opcode.LISTXATTR, 2, GETXATTR_IN.pack(7, 0)) == b"user.a\0"
    assert b'"engine": "direct"' in ask(dispatch, Opcode.GETXATTR, 1, sized(65536, b"user.artfs.statistics\0"))


def test_asking_for_the_prefetch_attribute_has_a_file_fetched(board):
    tree = MemoryTree(CONTENT)
    dispatch = dispatcher(board, tree)
    sized = GETXATTR_IN.pack(10, 0) + b"user.artfs.prefetch\0"
    assert ask(dispatch, Opcode.GETXATTR, 2, sized) == b"1"
    assert ask(dispatch, Opcode.GETXATTR, 1, sized) == errno.ENODATA  # a directory
    assert ask(dispatch, Opcode.GETXATTR, 99, sized) == errno.ENOENT
    assert tree.asked["prefetch"] == 3


def test_a_request_that_was_sent_again_is_answered_as_it_is_named(dispatch):
    assert ask(dispatch, Opcode.READ, 2, reading(0, 7), unique=42 | protocol.RESENT) == b"content"


def test_what_waits_is_deferred_with_its_message(board):
    dispatch = dispatcher(board, BlockingTree({"slow": b"late", "gone": b""}))
    buffer = bytearray(request(Opcode.READ, 2, reading(0, 4), pid=123))
    deferred = dispatch.answer(memoryview(buffer))
    buffer[:] = bytes(len(buffer))  # the loop reads the next request into it
    assert (deferred.unique, deferred.inode, deferred.pid) == (42, 2, 123)
    assert parsed(deferred.run(1e9)) == (42, 0, b"late")
    assert ask(dispatch, Opcode.READ, 3, reading(0, 4)) == DeadlineExceeded.errno
    assert board.slots[0].words[UNIQUE] == 0


def test_malformed_and_unknown_requests_are_logged_once(dispatch, caplog):
    for _ in range(3):
        assert ask(dispatch, 999) == errno.ENOSYS
        assert ask(dispatch, Opcode.READ, 2, b"short") == errno.ENOSYS
        assert ask(dispatch, Opcode.LOOKUP, 1, b"no end") == errno.ENOSYS
        assert parsed(dispatch.answer(request(Opcode.GETATTR) + b"more than it says"))[1] == errno.ENOSYS
    assert len(caplog.records) == 4
    assert dispatch.answer(b"") is None


words = st.one_of(st.sampled_from([0, 1, 2, 3, 5, 6, 2**31, 2**32, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1))
bodies = st.one_of(
    st.binary(max_size=120),
    st.lists(words, max_size=6).map(lambda numbers: struct.pack(f"{len(numbers)}Q", *numbers)),
    st.tuples(words, words, words).map(lambda n: READ_IN.pack(n[0], n[1], n[2] % 2**32, 0, 0, 0, 0)),
    st.text(max_size=50).map(lambda text: text.encode(errors="replace") + b"\0"),
    st.text(max_size=50).map(lambda text: GETXATTR_IN.pack(100, 0) + b"user." + text.encode(errors="replace") + b"\0"),
)


@settings(max_examples=600, deadline=None)
@given(
    opcode=st.one_of(st.sampled_from(list(Opcode)), st.integers(0, 2**32 - 1)),
    inode=words,
    unique=words,
    body=bodies,
    cut=st.integers(0, 3),
    blocking=st.booleans(),
)
def test_no_request_breaks_it(board, opcode, inode, unique, body, cut, blocking):
    tree = BlockingTree({"slow": b"s", "f": b"content", "broken": b"", "l": "f", "d/g": b""})
    dispatch = dispatcher(board, tree if blocking else MemoryTree(CONTENT))
    message = request(opcode, inode, body, unique)
    answer = dispatch.answer(message[: len(message) - cut])
    if isinstance(answer, Deferred):
        answer = answer.run(0.0)
    if isinstance(answer, tuple):
        said, error, content = parsed(answer)
        assert said == unique
        if opcode in (Opcode.READ, Opcode.READDIR, Opcode.READDIRPLUS) and not error:
            assert len(content) <= READ_IN.unpack_from(body)[2]
    else:
        assert answer is None or isinstance(answer, Interrupt)
    assert board.slots[0].words[UNIQUE] == 0


@given(st.binary(max_size=200))
def test_no_bytes_break_it(board, message):
    answer = dispatcher(board, MemoryTree(CONTENT)).answer(message)
    assert answer is None or isinstance(answer, tuple | Interrupt | Deferred)
