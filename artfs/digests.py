"""Digests: MD5 is the contract with W&B, SHA-256 identifies what is stored, XXH3-64 guards blocks in transit.

Sources: W&B's ``artifact_manifest_v1.py`` and ``hashutil.py`` (wandb 0.31.0) for ``ManifestDigest`` and the entry
digest; the tree digest is artfs's own and stands with vectors in docs/FORMATS.md.
"""

from __future__ import annotations

import base64
import hashlib

import xxhash

MANIFEST_PREAMBLE = b"wandb-artifact-manifest-v1\n"


def md5_base64(raw: bytes) -> str:
    """A raw 16-byte MD5 as W&B writes it: standard base64 with padding."""
    return base64.b64encode(raw).decode("ascii")


def md5_raw(digest: str) -> bytes:
    """The 16 bytes behind an entry digest; raises ValueError if it is not the base64 of an MD5."""
    raw = base64.b64decode(digest, validate=True)
    if len(raw) != 16:
        raise ValueError("not an MD5 digest")
    return raw


def block_checksum(data: bytes | bytearray | memoryview) -> int:
    """XXH3-64 of a block, seed 0: what catalogs and parts record for each MiB."""
    return xxhash.xxh3_64_intdigest(data)


def sha256(data: bytes | bytearray | memoryview) -> bytes:
    """The 32 bytes that identify an extent in the store."""
    return hashlib.sha256(data).digest()


class ManifestDigest:
    """W&B's ``Artifact.digest``, fed one entry at a time in path order (Unicode code points, which is UTF-8 order)."""

    __slots__ = ("_md5",)

    def __init__(self) -> None:
        self._md5 = hashlib.md5(MANIFEST_PREAMBLE, usedforsecurity=False)

    def add(self, path: str, digest: str) -> None:
        """Take in the next file or reference."""
        self._md5.update(f"{path}:{digest}\n".encode())

    def hexdigest(self) -> str:
        """The digest of what was added so far, lowercase hexadecimal."""
        return self._md5.hexdigest()


class TreeDigest:
    """What W&B's digest leaves out: SHA-256 over ``kind NUL path NUL value LF`` for every path, in path order.

    ``kind`` is ``f`` file, ``x`` executable file, ``r`` reference, ``l`` symlink, ``d`` empty directory; ``value`` the
    entry digest, ``uri NUL digest``, the link's target, or nothing.
    """

    __slots__ = ("_sha256",)

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, kind: str, path: str, value: str) -> None:
        """Take in the next path."""
        self._sha256.update(f"{kind}\0{path}\0{value}\n".encode())

    def hexdigest(self) -> str:
        """The digest of what was added so far, lowercase hexadecimal."""
        return self._sha256.hexdigest()
