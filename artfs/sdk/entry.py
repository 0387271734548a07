"""One entry of an artifact, as its manifest shows it."""

from __future__ import annotations

import json
import os
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import attrs

from artfs.catalog import Entry
from artfs.errors import InvalidInput
from artfs.sdk.draft import Row

if TYPE_CHECKING:
    from artfs.sdk.artifact import Artifact

ARTIFACT_SCHEME = "wandb-artifact"
"""Scheme of references to another artifact's entry; media files that W&B writes hold it too."""
CLIENT_SCHEME = "wandb-client-artifact"
"""The same for an artifact that has no id yet: its client id stands in its place."""


@attrs.define(eq=False)
class ArtifactManifestEntry:
    """A file or reference. What ``add_file``, ``add_reference`` and ``get_entry`` answer; not made otherwise."""

    path: str
    """In the artifact."""
    ref: str | None
    """URI of a reference."""
    size: int | None
    """Bytes; None where a reference's is unknown. (W&B has 0 for a reference to another artifact's entry.)"""
    extra: dict[str, Any]
    """Of a reference: ``etag``, ``versionID``."""
    local_path: str | None
    """Of a file that is not logged yet: where it is on this machine."""
    _parent: Artifact = attrs.field(repr=False)
    _row: Row | None = attrs.field(repr=False)
    _digest: str | None
    birth_artifact_id: str | None = None

    @property
    def digest(self) -> str:
        """Base64 of a file's MD5; of a reference what identifies its bytes.

        A file that is not logged is hashed when this is first asked for; raises SourceChanged if it is no longer what
        it was when it was added.
        """
        if self._digest is None:
            assert self._row is not None
            self._digest = self._parent.digest_of(self._row)
        return self._digest

    @property
    def name(self) -> str:
        """The path, under its former name."""
        return self.path

    def parent_artifact(self) -> Artifact:
        """The artifact that it is in."""
        return self._parent

    def download(
        self,
        root: str | os.PathLike[str] | None = None,
        skip_cache: bool | None = None,
        executor: Executor | None = None,  # noqa: ARG002 - W&B's
    ) -> str:
        """Copy it below ``root`` (the artifact's default) and answer the file's path.

        A file that is there already with the right content is not written again. Raises ArtifactNotLoggedError, and
        what fetching raises.
        """
        return self._parent.download_entry(self.path, root, skip_cache=bool(skip_cache))

    def ref_target(self) -> str:
        """The URI that it refers to; raises ValueError (InvalidInput) if it is a file."""
        if self.ref is None:
            raise InvalidInput("Only reference entries support ref_target().")
        return self.ref

    def ref_url(self) -> str:
        """A URI that ``add_reference`` of another artifact takes."""
        artifact = self._parent
        if artifact.id is None:
            return f"{CLIENT_SCHEME}://{artifact.client_id}/{self.path}"
        return f"{ARTIFACT_SCHEME}://{artifact.id}/{self.path}"

    def to_json(self) -> dict[str, Any]:
        """Path and manifest fields."""
        return {"path": self.path, **self.manifest_fields()}

    def manifest_fields(self) -> dict[str, Any]:
        """Its value in the manifest's ``contents``."""
        fields: dict[str, Any] = {"digest": self.digest, "ref": self.ref, "size": self.size}
        if self.extra:
            fields["extra"] = self.extra
        return {key: value for key, value in fields.items() if value is not None}


def of_row(row: Row, parent: Artifact) -> ArtifactManifestEntry:
    """The entry of an artifact that is not logged."""
    source = None if row.source is None else os.fsdecode(row.source)
    extra = json.loads(row.extra) if row.extra else {}
    return ArtifactManifestEntry(row.path, row.ref, row.size, extra, source, parent, row, row.digest)


def of_entry(entry: Entry, parent: Artifact) -> ArtifactManifestEntry:
    """The entry of an artifact that is logged."""
    reference = entry.reference
    if reference is None:
        return ArtifactManifestEntry(entry.path, None, entry.size, {}, None, parent, None, entry.digest)
    extra = dict(reference.extra)
    return ArtifactManifestEntry(entry.path, reference.uri, reference.size, extra, None, parent, None, reference.digest)
