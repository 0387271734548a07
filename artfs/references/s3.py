"""s3: recorded by ETag and version id, read by version id where there is one, else on condition of the ETag.

boto3 rather than obstore: keys such as ``a//b``, ``./a`` or ``a/`` are legal in S3 and obstore's paths cannot spell
them, and it cannot list object versions. Credentials, region and endpoint come from the AWS configuration.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import attrs
import boto3
import botocore.exceptions as aws
import urllib3.exceptions
from botocore.config import Config

from artfs.catalog.entry import Entry, Reference
from artfs.errors import (
    AccessDenied,
    ArtfsError,
    ConfigurationError,
    InvalidReference,
    ReferenceMissing,
    Unavailable,
)
from artfs.references.client import retry_after
from artfs.references.handler import (
    bare,
    changed,
    check_answer,
    entry_path,
    limited,
    recorded_etag,
    recorded_version,
    reference_entry,
    unchecked,
)
from artfs.references.history import History
from artfs.references.retry import Requests, TransientError
from artfs.references.uri import redact

T = TypeVar("T")

_URI = re.compile(
    r"s3://(?P<bucket>[^/?#]+)(?:/(?P<key>.*?))?(?:\?versionId=(?P<version>[^&#]+))?", re.DOTALL | re.IGNORECASE
)
_GONE: Final = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NoSuchBucket", "405", "MethodNotAllowed"})
"""405 is what S3 answers for the version id of a delete marker."""
_DENIED: Final = frozenset(
    {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
)
_TRANSIENT: Final = frozenset({"SlowDown", "RequestTimeout", "Throttling", "InternalError"})
_MARKERS: Final = {
    "list_object_versions": {"KeyMarker": "NextKeyMarker", "VersionIdMarker": "NextVersionIdMarker"},
    "list_objects_v2": {"ContinuationToken": "NextContinuationToken"},
}
_PAGE: Final = 1000
"""S3's own limit."""
_PIECE: Final = 1 << 16
"""Bytes between two looks at the deadline: botocore's body waits until it has them all."""
_NO_CREDENTIALS = (
    aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError, aws.TokenRetrievalError,
    aws.SSOError, aws.ProfileNotFound, aws.NoAuthTokenError,
)  # fmt: skip
_BROKEN = (aws.HTTPClientError, aws.IncompleteReadError, aws.ResponseStreamingError, urllib3.exceptions.HTTPError)


@attrs.frozen
class _Location:
    bucket: str
    key: str
    version: str | None

    @classmethod
    def of(cls, uri: str) -> _Location:
        match = _URI.fullmatch(uri)
        if match is None:
            raise InvalidReference(uri=redact(uri), why="expected s3://bucket/key")
        return cls(match["bucket"], match["key"] or "", match["version"])

    @property
    def uri(self) -> str:
        """As W&B records it: the version id stands in ``extra``."""
        return f"s3://{self.bucket}/{self.key}"

    def parameters(self, version: str | None) -> dict[str, Any]:
        found = {"Bucket": self.bucket, "Key": self.key}
        return found if version is None else found | {"VersionId": version}


class S3:
    """References to S3 and servers that speak its protocol."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._lock = threading.Lock()
        self._history = History()
        self._made: Any = None

    def expand(self, uri: str, name: str | None, *, checksum: bool, max_objects: int) -> Iterator[Entry]:
        """The object, or every object below the prefix that is not empty."""
        place = _Location.of(uri)
        if not checksum:
            yield unchecked(name or place.key or place.bucket, place.uri)
            return
        head = self._head_object(place, uri)
        if head is not None:
            reference = self._recorded(place.uri, head["ETag"], head["ContentLength"], head.get("VersionId"))
            yield reference_entry(entry_path(name, place.key, None), reference)
            return
        yield from limited(self._below(place, name, uri), max_objects, uri)

    def _head_object(self, place: _Location, uri: str) -> dict[str, Any] | None:
        """The object's metadata; None if ``place`` is a prefix."""
        if not place.key:
            return None
        try:
            head = self._call(
                uri, self._deadline(), lambda: self._client.head_object(**place.parameters(place.version))
            )
        except ReferenceMissing:
            if place.version is not None:
                raise
            return None
        return None if "x-directory" in head.get("ContentType", "") else head

    def _below(self, place: _Location, name: str | None, uri: str) -> Iterator[Entry]:
        prefix = place.key if not place.key or place.key.endswith("/") else place.key + "/"
        found = False
        for item in self._list(place.bucket, prefix, uri):
            found = True
            if item["Size"] == 0:
                continue
            reference = self._recorded(
                f"s3://{place.bucket}/{item['Key']}", item["ETag"], item["Size"], item.get("VersionId")
            )
            yield reference_entry(entry_path(name, item["Key"], prefix), reference)
        if not found:
            raise ReferenceMissing(uri=redact(uri), why="there is no such object and nothing below that prefix")

    def _list(self, bucket: str, prefix: str, uri: str) -> Iterator[dict[str, Any]]:
        """The present objects, with version ids where that listing is allowed: who may not list versions may not
        read by version either, and the ETag is identity enough.
        """
        versions = self._pages("list_object_versions", "Versions", bucket, prefix, uri)
        try:
            first = next(versions, None)
        except (AccessDenied, Unavailable):  # not allowed, or a server that lacks it
            yield from self._pages("list_objects_v2", "Contents", bucket, prefix, uri)
            return
        if first is not None:
            yield from (item for item in itertools.chain((first,), versions) if item["IsLatest"])

    def _pages(self, operation: str, items: str, bucket: str, prefix: str, uri: str) -> Iterator[dict[str, Any]]:
        arguments: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": _PAGE}
        while True:
            page = self._call(uri, self._deadline(), functools.partial(getattr(self._client, operation), **arguments))
            yield from page.get(items, ())
            if not page.get("IsTruncated"):
                return
            arguments |= {to: page[of] for to, of in _MARKERS[operation].items() if of in page}

    def _recorded(self, uri: str, etag: str, size: int, version: str | None) -> Reference:
        extra = {"etag": bare(etag)}
        if version and version != "null":  # "null": the object is older than the bucket's versioning
            extra["versionID"] = version
        return Reference(uri, bare(etag), size, extra)

    def identity(self, reference: Reference) -> str | None:
        """The version id or the ETag."""
        return recorded_version(reference) or recorded_etag(reference)

    def stat(self, reference: Reference, deadline: float) -> Reference:
        """One HEAD, of the version if it is recorded."""
        head = self._ask(reference, deadline, lambda parameters: self._head(reference, parameters))
        found = self._recorded(reference.uri, head["ETag"], head["ContentLength"], head.get("VersionId"))
        return attrs.evolve(reference, size=found.size, extra={**found.extra, **reference.extra})

    def fetch(self, reference: Reference, start: int, end: int, deadline: float) -> bytes:
        """One ranged GET, of the version if it is recorded."""
        if start >= end:
            return b""
        return self._ask(
            reference, deadline, lambda parameters: self._range(reference, parameters, start, end, deadline)
        )

    def _ask(self, reference: Reference, deadline: float, ask: Callable[[dict[str, Any]], T]) -> T:
        place = _Location.of(reference.uri)
        return self._history.ask(
            reference,
            recorded_version(reference) or place.version,
            lambda version: self._call(reference.uri, deadline, lambda: ask(place.parameters(version))),
            lambda etag: self._search(place, etag, reference.uri),
        )

    def _search(self, place: _Location, etag: str, uri: str) -> str | None:
        versions = self._pages("list_object_versions", "Versions", place.bucket, place.key, uri)
        # In key order: the key itself comes before every key that it is a prefix of.
        same_key = itertools.takewhile(lambda item: item["Key"] == place.key, versions)
        return next((item["VersionId"] for item in same_key if bare(item["ETag"]) == etag), None)

    def _head(self, reference: Reference, parameters: dict[str, Any]) -> dict[str, Any]:
        head: dict[str, Any] = self._client.head_object(**parameters)
        check_answer(reference, etag=head.get("ETag"), size=head["ContentLength"])
        return head

    def _range(self, reference: Reference, parameters: dict[str, Any], start: int, end: int, deadline: float) -> bytes:
        try:
            answer = self._client.get_object(**parameters, Range=f"bytes={start}-{end - 1}")
        except aws.ClientError as error:
            if error.response.get("Error", {}).get("Code") == "InvalidRange":
                raise changed(reference, f"{reference.size} bytes", "fewer") from error
            raise
        with contextlib.closing(answer["Body"]) as body:
            total = answer.get("ContentRange", "").rpartition("/")[2]
            check_answer(reference, etag=answer.get("ETag"), size=int(total) if total.isdigit() else None)
            if answer["ContentLength"] != end - start:
                raise changed(reference, f"{reference.size} bytes", f"{total} bytes")
            data = bytearray()
            while piece := body.read(_PIECE):
                data += piece
                if time.monotonic() > deadline:
                    raise TransientError("the answer came too slowly")
        if len(data) != end - start:
            raise TransientError("the answer was cut short")
        return bytes(data)

    def _deadline(self) -> float:
        return time.monotonic() + self._requests.timeout

    def _call(self, uri: str, deadline: float, ask: Callable[[], T]) -> T:
        what = redact(uri)

        def attempt(timeout: float) -> T:  # noqa: ARG001  botocore's timeouts belong to the client
            try:
                return ask()
            except aws.ClientError as error:
                raise _refusal(error, what) from error
            except _NO_CREDENTIALS as error:
                raise AccessDenied(what=what, why=str(error)) from error
            except aws.ParamValidationError as error:
                raise InvalidReference(uri=what, why="S3 allows no such bucket name or key") from error
            except _BROKEN as error:
                raise TransientError(f"the connection failed ({type(error).__name__})") from error
            except aws.BotoCoreError as error:
                raise Unavailable(what=what, why=str(error)) from error

        return self._requests.run(what, deadline, attempt)

    @property
    def _client(self) -> Any:  # boto3 makes the class of a client at run time
        with self._lock:
            if self._made is None:
                timeout = self._requests.timeout
                config = Config(
                    connect_timeout=timeout,
                    read_timeout=timeout,
                    retries={"total_max_attempts": 1},
                    max_pool_connections=16,
                    # Checksums of whole objects say nothing about ranges.
                    response_checksum_validation="when_required",
                )
                # W&B's variable; boto3 itself knows AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_S3.
                endpoint = os.environ.get("AWS_S3_ENDPOINT_URL")
                try:
                    self._made = boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)
                except (aws.BotoCoreError, ValueError) as error:
                    raise ConfigurationError(why=f"AWS: {error}") from error
            return self._made


def _refusal(error: aws.ClientError, what: str) -> ArtfsError | TransientError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"S3 answered {code or status}"
    if code in _GONE or status == 404:
        return ReferenceMissing(uri=what, why=said)
    if code in _DENIED or status in {401, 403}:
        return AccessDenied(what=what, why=said)
    if code in _TRANSIENT or status == 429 or (status >= 500 and status != 501):
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return TransientError(said, retry_after=retry_after(headers.get("retry-after")))
    return Unavailable(what=what, why=said)
