"""The documented Python API, as W&B's: artifacts, runs that log and use them, and ``Api`` to look things up."""

from artfs.sdk.api import Api
from artfs.sdk.artifact import Artifact
from artfs.sdk.attributes import ArtifactTTL
from artfs.sdk.collections import ArtifactCollection, ArtifactType
from artfs.sdk.entry import ArtifactManifestEntry
from artfs.sdk.files import ArtifactFiles, File
from artfs.sdk.manifest import ArtifactManifest
from artfs.sdk.prefetch import prefetch
from artfs.sdk.run import (
    Run,
    finish,
    finish_artifact,
    init,
    link_artifact,
    log_artifact,
    upsert_artifact,
    use_artifact,
)

__all__ = [
    "Api",
    "Artifact",
    "ArtifactCollection",
    "ArtifactFiles",
    "ArtifactManifest",
    "ArtifactManifestEntry",
    "ArtifactTTL",
    "ArtifactType",
    "File",
    "Run",
    "finish",
    "finish_artifact",
    "init",
    "link_artifact",
    "log_artifact",
    "prefetch",
    "upsert_artifact",
    "use_artifact",
]
