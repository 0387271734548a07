"""What is compared: artfs and its peers, each mounting the same files from one S3 server, cold or from its own cache.

Every peer gets the caches it has: on disk without a limit that matters, names and attributes for an hour.
"""

from __future__ import annotations

import abc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from harness import unmount, wait_for
from servers.seaweed import SeaweedServer

PROGRAMS: Final = Path(sys.executable).parent
QUIET: Final = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Artfs:
    """The contender, with its default engine."""

    name = "artfs"
    options = "engine=auto"

    def __init__(self, scratch: Path, server: SeaweedServer) -> None:
        self.home = scratch / "artfs"
        self.environment = os.environ | server.environment() | {"ARTFS_HOME": str(self.home), "ARTFS_ENTITY": "bench"}
        self.mountpoint = scratch / "artfs-mount"
        self.mountpoint.mkdir()
        self.run("init", f"s3://{server.make_bucket()}/store")

    def run(self, *arguments: str | Path) -> str:
        command = [sys.executable, "-m", "artfs.cli", *map(str, arguments)]
        return subprocess.run(command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    def mount(self, name: str) -> Path:
        self.run("mount", "-o", self.options, name, self.mountpoint)
        return self.mountpoint

    def unmount(self) -> None:
        self.run("umount", self.mountpoint)

    def forget(self, *, catalogs: bool = False) -> None:
        """Empty the disk cache, but for the catalogs: what is measured cold is the files."""
        for name in ("parts", "catalogs") if catalogs else ("parts",):
            shutil.rmtree(self.home / "cache" / name, ignore_errors=True)

    def pid(self) -> int:
        return json.loads(self.run("info", "--json", self.mountpoint))["pid"]

    def pids(self) -> list[int]:
        """Every process that serves the mount."""
        told = json.loads(os.getxattr(self.mountpoint, "user.artfs.statistics"))
        return [self.pid(), *(worker["pid"] for worker in told.get("workers", ()) if worker["pid"])]

    def cached(self) -> int:
        """Bytes in the cache."""
        return json.loads(self.run("cache", "info", "--json"))["parts_size"]


class OtherEngine(Artfs):
    """The same store and cache through a named engine."""

    def __init__(self, artfs: Artfs, engine: str) -> None:
        self.home, self.environment, self.mountpoint = artfs.home, artfs.environment, artfs.mountpoint
        self.name, self.options = f"artfs, {engine}", f"engine={engine}"


class Peer(abc.ABC):
    """Another mount, served by a process in the foreground."""

    name: str

    def __init__(self, scratch: Path) -> None:
        self.cache = scratch / f"{self.name}-cache"
        self.mountpoint = scratch / f"{self.name}-mount"
        self.mountpoint.mkdir()
        self.environment: dict[str, str] = dict(os.environ)
        self.process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def command(self, name: str) -> list[str | Path]:
        """What mounts the files ``name`` and stays in the foreground."""

    def mount(self, name: str) -> Path:
        self.cache.mkdir(exist_ok=True)
        self.process = subprocess.Popen(self.command(name), env=self.environment, **QUIET)
        wait_for(lambda: os.path.ismount(self.mountpoint), f"{self.name} mount")
        return self.root(name)

    def root(self, name: str) -> Path:
        """Where the files ``name`` are."""
        del name
        return self.mountpoint

    def unmount(self) -> None:
        unmount(self.mountpoint)
        assert self.process is not None
        self.process.wait(60)

    def forget(self, *, catalogs: bool = False) -> None:
        """Empty the disk cache."""
        del catalogs
        shutil.rmtree(self.cache, ignore_errors=True)

    def pids(self) -> list[int]:
        """The process that serves the mount, and its children."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]


class Rclone(Peer):
    """rclone mount with its full cache, over the same files as plain objects."""

    name = "rclone"
    modes = ("--read-only", "--vfs-cache-mode", "full")

    def __init__(self, scratch: Path, server: SeaweedServer, bucket: str) -> None:
        super().__init__(scratch)
        self.bucket = bucket
        self.environment |= {
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_CONFIG_S_TYPE": "s3",
            "RCLONE_CONFIG_S_PROVIDER": "SeaweedFS",
            "RCLONE_CONFIG_S_ENDPOINT": server.endpoint_url,
            "RCLONE_CONFIG_S_ACCESS_KEY_ID": server.access_key,
            "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": server.secret_key,
        }

    def command(self, name: str) -> list[str | Path]:
        return [
            PROGRAMS / "rclone", "mount", f"s:{self.bucket}/{name}", self.mountpoint, *self.modes,
            "--cache-dir", self.cache, "--dir-cache-time", "1h", "--attr-timeout", "1h", "--vfs-cache-max-age", "1h",
            "--log-level", "ERROR",
        ]  # fmt: skip


class JuiceFS(Peer):
    """JuiceFS with metadata in SQLite and its data in the bucket, in its own format: files are copied in once."""

    name = "juicefs"
    options = (
        "--read-only", "--open-cache", "3600", "--attr-cache", "3600", "--entry-cache", "3600",
        "--dir-entry-cache", "3600", "--cache-size", "100G",
    )  # fmt: skip

    def __init__(self, scratch: Path, server: SeaweedServer, bucket: str) -> None:
        super().__init__(scratch)
        self.meta = f"sqlite3://{scratch / 'juicefs.db'}"
        command = [PROGRAMS / "juicefs", "format", "--storage", "s3", "--bucket", f"{server.endpoint_url}/{bucket}"]
        keys = ["--access-key", server.access_key, "--secret-key", server.secret_key]
        subprocess.run([*command, *keys, self.meta, "bench"], check=True, capture_output=True)

    def command(self, name: str) -> list[str | Path]:
        del name
        return [
            PROGRAMS / "juicefs", "mount", "--no-usage-report", "--cache-dir", self.cache, *self.options,
            self.meta, self.mountpoint,
        ]  # fmt: skip

    def root(self, name: str) -> Path:
        return self.mountpoint / name

    def store(self, name: str, source: Path) -> None:
        """Copy the files in, through a writable mount."""
        options, self.options = self.options, ()
        self.mount(name)
        subprocess.run(["cp", "-r", source, self.mountpoint / name], check=True)
        self.unmount()
        self.options = options


class SeaweedMount(Peer):
    """SeaweedFS's own mount: not through S3, but its volume servers' own protocol, on the same machine."""

    name = "seaweedfs"

    def __init__(self, scratch: Path, server: SeaweedServer, bucket: str) -> None:
        super().__init__(scratch)
        self.filer, self.bucket = server.filer, bucket

    def command(self, name: str) -> list[str | Path]:
        options = {
            "filer": self.filer, "filer.path": f"/buckets/{self.bucket}/{name}", "dir": self.mountpoint,
            "cacheDir": self.cache, "cacheCapacityMB": 6000,  # which it takes from the disk at once
            "cacheMetaTtlSec": 3600, "readOnly": "true",
        }  # fmt: skip
        return [PROGRAMS / "weed", "mount", *(f"-{option}={value}" for option, value in options.items())]


class S3fs(Peer):
    """s3fs with its cache of whole files."""

    name = "s3fs"

    def __init__(self, scratch: Path, server: SeaweedServer, bucket: str) -> None:
        super().__init__(scratch)
        self.bucket = bucket
        self.passwords = scratch / "s3fs-passwords"
        self.passwords.write_text(f"{server.access_key}:{server.secret_key}\n")
        self.passwords.chmod(0o600)
        self.url = server.endpoint_url

    def command(self, name: str) -> list[str | Path]:
        options = (
            f"passwd_file={self.passwords},url={self.url},use_path_request_style,use_cache={self.cache},ro,"
            "kernel_cache,stat_cache_expire=3600,max_stat_cache_size=200000,parallel_count=16"
        )
        return ["s3fs", f"{self.bucket}:/{name}", self.mountpoint, "-f", "-o", options]


class WritableArtfs(Artfs):
    """A staging mount."""

    def mount_writable(self, name: str) -> Path:
        self.run("mount", "--writable", "--type", "dataset", name, self.mountpoint)
        return self.mountpoint

    def drafts(self) -> set[str]:
        """Names of the drafts there are."""
        return {draft["name"] for draft in json.loads(self.run("drafts", "--json"))["drafts"]}


class WritableRclone(Rclone):
    """rclone mount with its write cache."""

    modes = ("--vfs-cache-mode", "writes")

    def mount_writable(self, name: str) -> Path:
        return self.mount(name)


class WritableJuiceFS(JuiceFS):
    """JuiceFS at its defaults."""

    options = ()

    def mount_writable(self, name: str) -> Path:
        root = self.mount(name)
        root.mkdir(exist_ok=True)
        return root
