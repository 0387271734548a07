"""What every scheme answers, and the rules that all of them share."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final, Protocol

from artfs.catalog.entry import Entry, Kind, Reference
from artfs.errors import InvalidReference, ReferenceChanged
from artfs.names import check_path
from artfs.references.uri import redact

MAX_OBJECTS: Final = 10_000_000
"""How many objects one URI may expand to unless told otherwise: wandb 0.31.0, ``storage_handler.py`` (the API page
still says 10,000, which older releases had)."""


class Handler(Protocol):
    """One scheme. Thread-safe. Deadlines are absolute ``time.monotonic()`` seconds."""

    def expand(self, uri: str, name: str | None, *, checksum: bool, max_objects: int) -> Iterator[Entry]:
        """The entries that adding ``uri`` makes, as W&B makes them; each request has a deadline of its own.

        Raises InvalidReference (also past ``max_objects``, after yielding that many), InvalidPath, ReferenceMissing,
        AccessDenied, Unavailable.
        """

    def identity(self, reference: Reference) -> str | None:
        """What later answers are compared with; None where nothing exact enough was recorded. Asks nobody."""

    def stat(self, reference: Reference, deadline: float) -> Reference:
        """``reference`` with the size and the identity that the remote side has now.

        Raises ReferenceChanged if this contradicts what is recorded, ReferenceMissing, AccessDenied, Unavailable.
        """

    def fetch(self, reference: Reference, start: int, end: int, deadline: float) -> bytes:
        """Exactly the bytes ``start`` to ``end`` of a reference whose size and identity are known.

        Raises what ``stat`` raises.
        """


def reference_entry(path: str, reference: Reference) -> Entry:
    """The entry of a reference; raises InvalidPath."""
    return Entry(check_path(path), Kind.REFERENCE, reference=reference)


def unchecked(path: str, uri: str) -> Entry:
    """The entry that ``checksum=False`` makes: nobody is asked, and the digest is the URI."""
    return reference_entry(path, Reference(uri, uri, None))


def entry_path(name: str | None, key: str, prefix: str | None) -> str:
    """Where W&B puts the object ``key``: found on its own (``prefix`` None) or below the prefix that was added."""
    if prefix is None:
        return name or PurePosixPath(key).name
    relative = key.removeprefix(prefix).lstrip("/")
    return f"{name}/{relative}" if name else relative


def limited(entries: Iterable[Entry], max_objects: int, uri: str) -> Iterator[Entry]:
    """``entries``, but never silently fewer than there are: one too many raises InvalidReference."""
    iterator = iter(entries)
    yield from itertools.islice(iterator, max_objects)
    if next(iterator, None) is not None:
        why = f"Exceeded {max_objects} objects tracked, pass max_objects to add_reference"  # W&B's sentence
        raise InvalidReference(uri=redact(uri), why=why)


def bare(etag: str) -> str:
    """An ETag for comparison: without quotes and weakness (RFC 9110, 8.8.3.2, weak comparison)."""
    return etag.removeprefix("W/").strip('"')


def recorded_etag(reference: Reference) -> str | None:
    """The ETag that was recorded, bare; None if there is none (W&B puts the URI in the digest's place then)."""
    if etag := reference.extra.get("etag"):
        return bare(etag)
    return None if reference.digest == reference.uri else bare(reference.digest)


def recorded_version(reference: Reference) -> str | None:
    """The version id or generation that was recorded."""
    return reference.extra.get("versionID") or None


def changed(reference: Reference, expected: object, found: object) -> ReferenceChanged:
    """The error for an answer that is not what ``reference`` recorded."""
    return ReferenceChanged(uri=redact(reference.uri), expected=expected, found=found)


def check_answer(reference: Reference, *, etag: str | None, size: int | None) -> None:
    """Compare an answer with what is recorded; raises ReferenceChanged. A recorded size of 0 means nobody knew it."""
    expected = recorded_etag(reference)
    if expected is not None and (etag is None or bare(etag) != expected):
        raise changed(reference, f"ETag {expected}", "no ETag" if etag is None else f"ETag {bare(etag)}")
    if reference.size and size is not None and size != reference.size:
        raise changed(reference, f"{reference.size} bytes", f"{size} bytes")


def identity_key(reference: Reference, *also: object) -> str:
    """SHA-256 in hex of everything that says which bytes ``reference`` means: its name in the cache."""
    extra = [part for item in sorted(reference.extra.items()) for part in item]
    parts = [reference.uri, reference.digest, *extra, *map(str, also)]
    # Lengths keep the framing unambiguous: imported references may hold any character.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
