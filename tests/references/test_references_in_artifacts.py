"""References to real servers in artifacts: added as the API page's examples do, logged, read back, and out of reach."""

import json
import textwrap
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
from servers.reference_servers import Origin, running_origin

import artfs
from artfs.errors import AccessDenied, ReferenceChanged, Unavailable
from artfs.sdk import session
from artfs.versions.download import _THREADS


@pytest.fixture
def run(tmp_path, monkeypatch):
    for name, value in {"HOME": tmp_path / "home", "ENTITY": "acme", "READ_DEADLINE": 2}.items():
        monkeypatch.setenv(f"ARTFS_{name}", str(value))
    monkeypatch.chdir(tmp_path)
    with artfs.init() as run:
        yield run
    session.close()


def downloaded(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


HTTP = """
    # Adds `file.txt` to the root of the artifact as a reference.
    artifact.add_reference("http://myserver.com/file.txt")
"""
S3 = """
    # All objects under `prefix/` will be added at the root of the artifact.
    artifact.add_reference("s3://mybucket/prefix")
"""
GS = """
    # All objects under `prefix/` will be added under `path/` at the artifact
    # root.
    artifact.add_reference("gs://mybucket/prefix", name="path")
"""


def example(text, artifact):
    exec("import artfs as wandb\n" + textwrap.dedent(text), {"artifact": artifact})


def read_back(run, artifact):
    run.log_artifact(artifact).wait()
    return downloaded(artfs.Api().artifact(artifact.name).download("out"))


def test_the_http_example(run, origin: Origin, monkeypatch):
    """A proxy stands for the server, whose name is that of the page."""
    monkeypatch.setenv("http_proxy", origin.url)
    monkeypatch.setenv("no_proxy", "")
    origin.content("http://myserver.com/file.txt", b"from afar", etag='"1"')
    artifact = artfs.Artifact("a", "dataset")
    example(HTTP, artifact)
    assert read_back(run, artifact) == {"file.txt": b"from afar"}


def test_the_s3_example(run, s3_client):
    s3_client.create_bucket(Bucket="mybucket")
    try:
        for key in ("prefix/a", "prefix/sub/b", "prefix-not/c"):
            s3_client.put_object(Bucket="mybucket", Key=key, Body=key.encode())
        artifact = artfs.Artifact("a", "dataset")
        example(S3, artifact)
        assert read_back(run, artifact) == {"a": b"prefix/a", "sub/b": b"prefix/sub/b"}
    finally:
        s3_client.delete_bucket(Bucket="mybucket")


def post(url, body, content_type):
    request = urllib.request.Request(url, data=body, headers={"Content-Type": content_type})
    urllib.request.urlopen(request, timeout=10).close()


def test_the_gs_example(run, gcs_server, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    post(f"{gcs_server}/storage/v1/b?project=p", json.dumps({"name": "mybucket"}).encode(), "application/json")
    for key in ("prefix/a", "prefix/sub/b", "prefix-not/c"):
        url = f"{gcs_server}/upload/storage/v1/b/mybucket/o?uploadType=media&name={quote(key, safe='')}"
        post(url, key.encode(), "application/octet-stream")
    artifact = artfs.Artifact("a", "dataset")
    example(GS, artifact)
    assert read_back(run, artifact) == {"path/a": b"prefix/a", "path/sub/b": b"prefix/sub/b"}


def test_azure(run, azure_connection, monkeypatch):
    from azure.storage.blob import BlobServiceClient

    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure_connection)
    with BlobServiceClient.from_connection_string(azure_connection) as service:
        container = service.create_container("in-artifacts")
        for key in ("prefix/a", "prefix/sub/b", "prefix-not/c"):
            container.upload_blob(key, key.encode())
    artifact = artfs.Artifact("a", "dataset")
    artifact.add_reference("https://artfs.blob.core.windows.net/in-artifacts/prefix")
    assert read_back(run, artifact) == {"a": b"prefix/a", "sub/b": b"prefix/sub/b"}


def test_nothing_that_happens_to_one_reference_stops_the_rest(run, origin: Origin):
    """Changed, denied, and a host that does not answer, which is asked once and not for each reference."""
    artifact = artfs.Artifact("a", "dataset")
    for name in ("changed", "denied", "there"):
        artifact.add_reference(origin.content(f"/{name}", name.encode(), etag='"1"'))
    with running_origin() as ill:
        for number in range(30):
            uri = ill.serve(f"/{number}", lambda request: request.answer(503, retry_after="3600"))
            artifact.add_reference(uri, f"ill/{number}", checksum=False)
        with artifact.new_file("z/last") as file:
            file.write("stored")
        run.log_artifact(artifact).wait()
        origin.content("/changed", b"another", etag='"2"')
        origin.serve("/denied", lambda request: request.answer(403))
        with pytest.raises((ReferenceChanged, AccessDenied, Unavailable)):
            artifact.download("out", allow_missing_references=True)
        assert downloaded("out") == {"there": b"there", "z/last": b"stored"}
        assert 0 < len(ill.seen) <= _THREADS, "what was asked for before the first answer came"


def test_the_profile_of_the_environment(run, s3_environment, s3_server, s3_client, monkeypatch, tmp_path):
    """Keys, region and endpoint stand in AWS's own files alone."""
    bucket = s3_server.make_bucket()
    s3_client.put_object(Bucket=bucket, Key="k", Body=b"1")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION", "ENDPOINT_URL"):
        monkeypatch.delenv(f"AWS_{name}")
    (tmp_path / "credentials").write_text(
        f"[other]\naws_access_key_id = {s3_server.access_key}\naws_secret_access_key = {s3_server.secret_key}\n"
    )
    (tmp_path / "config").write_text(f"[profile other]\nregion = us-east-1\nendpoint_url = {s3_server.endpoint_url}\n")
    for name, value in {"SHARED_CREDENTIALS_FILE": "credentials", "CONFIG_FILE": "config"}.items():
        monkeypatch.setenv(f"AWS_{name}", str(tmp_path / value))
    monkeypatch.setenv("AWS_PROFILE", "other")
    artifact = artfs.Artifact("a", "dataset")
    artifact.add_reference(f"s3://{bucket}/k")
    assert read_back(run, artifact) == {"k": b"1"}
    s3_client.delete_bucket(Bucket=bucket)


def same(wandb, *references, **options):
    """The manifest's contents, which are those of the real client, whose digest is equal too."""
    artifacts = [library.Artifact("a", "dataset") for library in (artfs, wandb)]
    for artifact in artifacts:
        for uri in references:
            artifact.add_reference(uri, **options)
    ours, theirs = (artifact.manifest.to_manifest_json() for artifact in artifacts)
    assert ours == theirs
    assert artifacts[0].digest == artifacts[1].digest
    return ours["contents"]


@pytest.mark.parametrize("versioning", [False, True])
def test_wandb_records_the_same_of_s3(run, offline_wandb, s3_server, s3_client, versioning, monkeypatch):
    monkeypatch.setenv("AWS_S3_ENDPOINT_URL", s3_server.endpoint_url)
    bucket = s3_server.make_bucket(versioning=versioning)
    put = {}
    for key in ("top/a", "top/sub/b c", "top/a"):
        put[key] = s3_client.put_object(Bucket=bucket, Key=key, Body=key.encode() * (1 + len(put)))
    same(offline_wandb, f"s3://{bucket}/top/")
    same(offline_wandb, f"s3://{bucket}/top", name="n")
    (one,) = same(offline_wandb, f"s3://{bucket}/top/a").values()
    assert one["extra"].get("versionID") == put["top/a"].get("VersionId")
    assert ("versionID" in one["extra"]) is versioning
    same(offline_wandb, f"s3://{bucket}/top/a", checksum=False)
    if versioning:
        versions = s3_client.list_object_versions(Bucket=bucket, Prefix="top/a")["Versions"]
        (first,) = {version["VersionId"] for version in versions if not version["IsLatest"]}
        recorded = []
        for library in (artfs, offline_wandb):
            (entry,) = library.Artifact("a", "t").add_reference(f"s3://{bucket}/top/a?versionId={first}")
            recorded.append((entry.extra["versionID"], entry.size))
        newest = put["top/a"]["VersionId"]
        assert recorded == [(first, 5), (newest, 15)], "W&B records the newest version, whichever was asked for"
    s3_client.delete_bucket(Bucket=bucket)


def test_wandb_records_the_same_of_http(run, offline_wandb, nginx, origin: Origin):
    url = origin.content("/dir/same.txt", b"1234", etag='"e"')
    origin.serve("/moved", lambda request: request.answer(302, location="/dir/same.txt"))
    (entry,) = same(offline_wandb, url).values()
    assert entry == {"digest": "e", "ref": url, "size": 4, "extra": {"etag": '"e"'}}
    moved, target = (
        library.Artifact("a", "t").add_reference(f"{origin.url}/moved")[0] for library in (artfs, offline_wandb)
    )
    assert (moved.ref, target.ref) == (f"{origin.url}/moved", url), "W&B records where the redirect led"
    assert (moved.digest, moved.size, moved.extra) == (target.digest, target.size, target.extra)
    same(offline_wandb, url, checksum=False)
    same(offline_wandb, origin.content("/no-etag", b"12"))
    unsized = origin.content("/no-length", b"12", ranges=False, etag='"e"', content_length="")
    same(offline_wandb, unsized)
    # artfs asks for the file as it is: of a compressed answer the size is unknown, and the ETag is a weak one.
    (nginx.www / "packed.txt").write_bytes(b"1234")
    (ours,), (theirs,) = (
        library.Artifact("a", "t").add_reference(f"{nginx.url}/packed.txt") for library in (artfs, offline_wandb)
    )
    assert (ours.size, theirs.size) == (4, None)
    assert theirs.extra["etag"] == f"W/{ours.extra['etag']}"
