"""Ranges by signed URLs: what they save, and that whatever is out of the ordinary goes the other way."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import obstore
import pytest
import trustme
from store_clock import soon

from artfs.errors import AccessDenied, BucketNotFound, Damaged, ObjectNotFound, StoreUnavailable
from artfs.store import open_store
from artfs.store.signed import SignedRanges, Unfit

MIB = 1 << 20
BODY = bytes(range(256)) * 20_000  # 5,120,000 bytes


@pytest.fixture
def room():
    return memoryview(bytearray(MIB))


@pytest.fixture
def stored(store):
    store.put("packs/a b/c", BODY, deadline=soon())
    return store


def pieces(store, start, end, room):
    return [bytes(piece) for piece in store.stream("packs/a b/c", start, end, room, deadline=soon())]


def test_pieces_are_as_long_as_the_room_but_the_last(stored, room):
    found = pieces(stored, 100, 5_000_000, room)
    assert [len(piece) for piece in found] == [MIB, MIB, MIB, MIB, 4_999_900 - 4 * MIB]
    assert b"".join(found) == BODY[100:5_000_000]
    assert stored.statistics().bytes_in == 4_999_900
    assert stored.statistics().requests == 2  # the one that stored it, and this
    assert pieces(stored, 7, 7, room) == []


def test_a_piece_lies_in_the_room(stored, room):
    for at, piece in enumerate(stored.stream("packs/a b/c", 0, 3 * MIB, room, deadline=soon())):
        assert piece.obj is room.obj
        assert piece == BODY[at * MIB : (at + 1) * MIB]


def test_what_the_object_does_not_have_is_damage(stored, room):
    with pytest.raises(Damaged, match="ends at byte 5120000"):
        pieces(stored, 5_000_000, 6_000_000, room)
    with pytest.raises(Damaged, match="ends at byte"):
        pieces(stored, 6_000_000, 7_000_000, room)


def test_what_is_not_there_is_told_as_elsewhere(store, s3_environment, room):
    with pytest.raises(ObjectNotFound):
        pieces(store, 0, 10, room)
    with pytest.raises(BucketNotFound):
        pieces(open_store("s3://no-such-bucket", endpoint=None, request_timeout=5), 0, 10, room)


def test_one_connection_serves_one_range_after_the_other(flaky_store, s3_proxy, room):
    flaky_store.put("packs/a b/c", BODY, deadline=soon())
    before = s3_proxy.connections
    for start in range(0, 10 * MIB // 4, MIB // 4):
        assert b"".join(pieces(flaky_store, start, start + 1000, room)) == BODY[start : start + 1000]
    assert s3_proxy.connections == before + 1


def test_a_reader_that_stops_early_leaves_nothing_behind_for_the_next(flaky_store, s3_proxy, room):
    flaky_store.put("packs/a b/c", BODY, deadline=soon())
    abandoned = flaky_store.stream("packs/a b/c", 0, 4 * MIB, room, deadline=soon())
    assert next(abandoned) == BODY[:MIB]
    abandoned.close()
    assert b"".join(pieces(flaky_store, 5, 2 * MIB, room)) == BODY[5 : 2 * MIB]


def test_a_kept_connection_that_the_server_closed_is_no_failure(flaky_store, s3_proxy, room):
    flaky_store.put("packs/a b/c", BODY, deadline=soon())
    pieces(flaky_store, 0, 10, room)
    s3_proxy.hang_up()
    assert pieces(flaky_store, 0, 10, room) == [BODY[:10]]
    assert flaky_store.statistics().retries == 0


def test_a_proxy_is_left_to_obstore(s3_store, room, monkeypatch, caplog):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with caplog.at_level(logging.DEBUG, "artfs.store.remote"), pytest.raises(StoreUnavailable, match="refused"):
        list(s3_store.stream("k", 0, 10, room, deadline=soon(0.2)))
    assert "not by a signed URL" in caplog.text


def test_credentials_that_may_not_read_are_told_as_elsewhere(s3_server, bucket, monkeypatch, room):
    for name, value in (s3_server.environment() | {"AWS_SECRET_ACCESS_KEY": "wrong"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(AccessDenied, match="403"):
        pieces(open_store(f"s3://{bucket}", endpoint=None, request_timeout=5), 0, 10, room)


def signed_ranges(url, s3_environment, bucket, expires=60):
    client = obstore.store.from_url(
        f"s3://{bucket}",
        endpoint=url,
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
        access_key_id=s3_environment.access_key,
        secret_access_key=s3_environment.secret_key,
        region=s3_environment.region,
    )
    signed = []

    def sign(key):
        signed.append(key)
        return obstore.sign(client, "GET", key, timedelta(seconds=expires))

    return SignedRanges("s3://bucket", sign, silence=5.0), signed, client


def test_a_url_is_signed_once_for_many_ranges_and_anew_after_a_refusal(s3_environment, bucket, s3_proxy, room):
    ranges, signed, client = signed_ranges(s3_proxy.url, s3_environment, bucket)
    obstore.put(client, "k", BODY)
    for start in (0, 10, 20):
        assert b"".join(map(bytes, ranges.stream("k", start, start + 5, room, 5.0))) == BODY[start : start + 5]
    assert signed == ["k"]
    s3_proxy.fail("403", method="GET")
    with pytest.raises(Unfit):
        list(ranges.stream("k", 0, 5, room, 5.0))
    assert b"".join(map(bytes, ranges.stream("k", 0, 5, room, 5.0))) == BODY[:5]
    assert signed == ["k", "k"]


class RangeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):  # the base class looks it up
        start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{len(BODY)}")
        self.send_header("Content-Length", str(end + 1 - start))
        self.end_headers()
        self.wfile.write(BODY[start : end + 1])

    def log_message(self, format, *args):  # noqa: A002  the base class's name
        pass


@pytest.fixture
def tls(tmp_path):
    """A server with a certificate of an authority of its own: the ranges, and the authority's file."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # a client that does not trust it hangs up
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"https://localhost:{server.server_address[1]}"
        yield SignedRanges("s3://bucket", lambda key: f"{url}/{key}?x=1", silence=5.0), tmp_path / "ca.pem"
        server.shutdown()


def test_over_tls(tls, room, monkeypatch):
    ranges, authority = tls
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    assert b"".join(map(bytes, ranges.stream("k", 10, 3 * MIB, room, 5.0))) == BODY[10 : 3 * MIB]
    assert b"".join(map(bytes, ranges.stream("k", 0, 5, room, 5.0))) == BODY[:5]


def test_a_certificate_that_is_not_trusted_is_left_to_obstore(tls, room):
    ranges, _ = tls
    with pytest.raises(Unfit):
        list(ranges.stream("k", 0, 5, room, 5.0))


class BreakingHandler(RangeHandler):
    """Fails, and hangs up in the middle of saying why: in order, or without a word (RST)."""

    reset = False

    def do_GET(self):
        self.send_response(503)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"<Error><Code>SlowDown</Code>")
        self.wfile.flush()
        if self.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


@pytest.mark.parametrize("reset", [False, True])
def test_a_failure_whose_reason_breaks_off_is_a_failure_of_the_store(room, monkeypatch, reset):
    monkeypatch.setattr(BreakingHandler, "reset", reset)
    with ThreadingHTTPServer(("127.0.0.1", 0), BreakingHandler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # it cannot flush what it has closed
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        ranges = SignedRanges("s3://bucket", lambda key: f"{url}/{key}?x=1", silence=5.0)
        with pytest.raises(StoreUnavailable, match=r"SlowDown|connection|reset|503"):
            list(ranges.stream("k", 0, 5, room, 5.0))
        server.shutdown()
