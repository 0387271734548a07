"""s3 references, against a real S3 server with versioning."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from servers.seaweed import READER, SeaweedServer

from artfs.catalog.entry import Entry, Reference
from artfs.errors import AccessDenied, InvalidReference, ReferenceChanged, ReferenceMissing, Unavailable
from artfs.references import References

BODY = bytes(range(256)) * 400


@pytest.fixture
def bucket(s3_server: SeaweedServer, s3_client: Any) -> Iterator[str]:
    name = s3_server.make_bucket()
    yield name
    s3_client.delete_bucket(Bucket=name)  # SeaweedFS drops the objects with it


@pytest.fixture
def versioned(s3_client: Any, bucket: str) -> str:
    s3_client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def put(s3_client: Any, bucket: str, key: str, body: bytes = BODY, **options: str) -> dict[str, Any]:
    return dict(s3_client.put_object(Bucket=bucket, Key=key, Body=body, **options))


def only(entries: Iterator[Entry]) -> Reference:
    (entry,) = entries
    assert entry.reference is not None
    return entry.reference


def test_one_object(references: References, s3_client: Any, bucket: str, soon: float) -> None:
    etag = put(s3_client, bucket, "dir/data.bin")["ETag"].strip('"')
    (entry,) = references.expand(f"s3://{bucket}/dir/data.bin")
    assert entry.path == "data.bin"
    assert entry.reference == Reference(f"s3://{bucket}/dir/data.bin", etag, len(BODY), {"etag": etag})
    assert references.settled(entry.reference, scope="v") == entry.reference
    assert references.read(entry.reference, 100, 5000, deadline=soon) == BODY[100:5000]
    assert references.read(entry.reference, len(BODY) - 1, len(BODY), deadline=soon) == BODY[-1:]
    (entry,) = references.expand(f"s3://{bucket}/dir/data.bin", "x/y")
    assert entry.path == "x/y"


def test_a_prefix(references: References, s3_client: Any, bucket: str, soon: float) -> None:
    for key in ("top/a", "top/sub/b c", "top/sub/d?e#f%41", "top-not/x", "other"):
        put(s3_client, bucket, key, key.encode())
    put(s3_client, bucket, "top/zero", b"")
    for uri in (f"s3://{bucket}/top", f"s3://{bucket}/top/"):
        entries = list(references.expand(uri))
        assert [e.path for e in entries] == ["a", "sub/b c", "sub/d?e#f%41"], "empty objects are skipped"
        for entry in entries:
            assert entry.reference is not None
            content = references.read(entry.reference, 0, entry.reference.size or 0, deadline=soon)
            assert entry.reference.uri == f"s3://{bucket}/{content.decode()}"
    assert [e.path for e in references.expand(f"s3://{bucket}/top", "n")] == ["n/a", "n/sub/b c", "n/sub/d?e#f%41"]
    assert len(list(references.expand(f"s3://{bucket}"))) == 5
    assert len(list(references.expand(f"s3://{bucket}/", max_objects=5))) == 5
    with pytest.raises(ValueError, match="Exceeded 4 objects tracked, pass max_objects to add_reference"):
        list(references.expand(f"s3://{bucket}/", max_objects=4))


def test_a_directory_object_is_expanded(references: References, s3_client: Any, bucket: str) -> None:
    put(s3_client, bucket, "made", b"x", ContentType="application/x-directory")
    put(s3_client, bucket, "made/inside")
    assert [e.path for e in references.expand(f"s3://{bucket}/made")] == ["inside"]


@pytest.mark.parametrize("versions", [False, True])
def test_more_objects_than_a_page_holds(
    references: References, s3_client: Any, bucket: str, versions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from artfs.references import s3 as module

    monkeypatch.setattr(module, "_PAGE", 4)
    if versions:
        s3_client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        put(s3_client, bucket, "many/05", b"old")
    for number in range(13):
        put(s3_client, bucket, f"many/{number:02}", b"new!")
    found = list(references.expand(f"s3://{bucket}/many"))
    assert [e.path for e in found] == [f"{number:02}" for number in range(13)]
    assert {e.reference.size for e in found if e.reference is not None} == {4}
    assert references.statistics().requests > 4


def test_without_checksum(references: References, s3_client: Any, bucket: str, soon: float) -> None:
    uri = f"s3://{bucket}/dir/data.bin"
    (entry,) = references.expand(uri, checksum=False)
    assert (entry.path, entry.reference) == ("dir/data.bin", Reference(uri, uri, None))
    (entry,) = references.expand(f"s3://{bucket}", checksum=False)
    assert entry.path == bucket
    reference = only(references.expand(uri, "n", checksum=False))
    with pytest.raises(ReferenceMissing):
        references.settle(reference, scope="v", deadline=soon)
    put(s3_client, bucket, "dir/data.bin")
    settled = references.settle(reference, scope="v", deadline=soon)
    assert references.read(settled, 1, 4, deadline=soon) == BODY[1:4]
    put(s3_client, bucket, "dir/data.bin", BODY[::-1])
    with pytest.raises(ReferenceChanged, match="expected ETag"):
        references.read(settled, 1, 4, deadline=soon)


def test_versions_stay_readable(references: References, s3_client: Any, versioned: str, soon: float) -> None:
    first = put(s3_client, versioned, "data")
    reference = only(references.expand(f"s3://{versioned}/data"))
    assert reference.extra["versionID"] == first["VersionId"]
    assert only(references.expand(f"s3://{versioned}/")).extra == reference.extra, "a listing knows the versions too"
    put(s3_client, versioned, "data", b"second")
    explicit = only(references.expand(f"s3://{versioned}/data?versionId={first['VersionId']}"))
    assert explicit == reference
    s3_client.delete_object(Bucket=versioned, Key="data")
    with pytest.raises(ReferenceMissing):
        list(references.expand(f"s3://{versioned}/data"))
    assert references.read(reference, 0, 10, deadline=soon) == BODY[:10]
    s3_client.delete_object(Bucket=versioned, Key="data", VersionId=first["VersionId"])
    with pytest.raises(ReferenceMissing, match="p: reference s3://"):
        references.read(reference, 0, 10, path="p", deadline=soon)
    with pytest.raises(ReferenceMissing):
        list(references.expand(f"s3://{versioned}/data?versionId={first['VersionId']}"))


def test_an_etag_is_looked_for_among_the_versions(
    references: References, s3_client: Any, versioned: str, soon: float
) -> None:
    etag = put(s3_client, versioned, "data")["ETag"].strip('"')
    put(s3_client, versioned, "data2", b"neighbour")
    # As recorded by someone who could not see versions.
    reference = Reference(f"s3://{versioned}/data", etag, len(BODY), {"etag": etag})
    put(s3_client, versioned, "data", b"second")
    assert references.read(reference, 10, 20, deadline=soon) == BODY[10:20]
    s3_client.delete_object(Bucket=versioned, Key="data")
    asked = references.statistics().requests
    assert references.read(reference, 20, 30, deadline=soon) == BODY[20:30]
    assert references.statistics().requests == asked + 1, "the version found is remembered"
    unsized = Reference(reference.uri, etag, None, {})
    settled = references.settle(unsized, scope="v", deadline=soon)
    assert settled.size == len(BODY)
    assert references.read(settled, 20, 30, deadline=soon) == BODY[20:30]


def test_a_reader_needs_no_more_than_get_and_list(
    references: References, s3_client: Any, versioned: str, soon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3_client, versioned, "top/a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER[1])
    reference = only(references.expand(f"s3://{versioned}/top"))
    assert references.read(reference, 0, 10, deadline=soon) == BODY[:10]


def test_without_leave_to_list_versions_the_etag_is_recorded(
    references: References, s3_client: Any, versioned: str, soon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3_client, versioned, "top/a")
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:ListBucketVersions",
        "Resource": f"arn:aws:s3:::{versioned}",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    s3_client.put_bucket_policy(Bucket=versioned, Policy=policy)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER[1])
    reference = only(references.expand(f"s3://{versioned}/top"))
    assert list(reference.extra) == ["etag"]
    put(s3_client, versioned, "top/a", b"second")
    with pytest.raises(ReferenceChanged):
        references.read(reference, 0, 10, deadline=soon)


def test_changed_and_gone(references: References, s3_client: Any, bucket: str, soon: float) -> None:
    put(s3_client, bucket, "data")
    reference = only(references.expand(f"s3://{bucket}/data"))
    put(s3_client, bucket, "data", b"second")
    with pytest.raises(ReferenceChanged, match=f"{reference.digest}, found ETag"):
        references.read(reference, 0, 3, deadline=soon)
    s3_client.delete_object(Bucket=bucket, Key="data")
    with pytest.raises(ReferenceMissing, match=r"p: .*s3://"):
        references.read(reference, 0, 3, path="p", deadline=soon)
    with pytest.raises(ReferenceMissing, match="nothing below"):
        list(references.expand(f"s3://{bucket}/data"))
    with pytest.raises(ReferenceMissing):
        list(references.expand("s3://no-such-bucket-anywhere/x"))


def test_credentials(references: References, s3_client: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3_client, bucket, "data")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(AccessDenied) as caught:
        list(references.expand(f"s3://{bucket}/data"))
    assert "wrong-secret" not in str(caught.value)


def test_no_credentials(references: References, s3_client: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3_client, bucket, "data")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AccessDenied, match=r"(?i)credentials"):
        list(references.expand(f"s3://{bucket}/data"))


def test_no_server(references: References, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    reference = Reference("s3://bucket/x", "e", 5, {"etag": "e"})
    start = time.monotonic()
    with pytest.raises(Unavailable, match="s3://bucket/x"):
        references.read(reference, 0, 5, deadline=start + 0.5)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "s3:bucket/key"])
def test_uris_without_a_bucket(references: References, uri: str) -> None:
    with pytest.raises(InvalidReference, match="s3://bucket/key"):
        list(references.expand(uri))
