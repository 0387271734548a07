"""The documented Python API, as W&B's: artifacts, runs that log and use them, and ``Api`` to look things up."""

from artfs.sdk.api import Api
from artfs.sdk.artifact import Artifact
from artfs.sdk.attributes import ArtifactTTL
from artfs.sdk.collections import ArtifactCollection, ArtifactType
from artfs.sdk.current import (
    finish,
    finish_artifact,
    init,
    link_artifact,
    link_model,
    log_artifact,
    log_model,
    upsert_artifact,
    use_artifact,
    use_model,
)
from artfs.sdk.entry import ArtifactManifestEntry
from artfs.sdk.files import ArtifactFiles, File
from artfs.sdk.manifest import ArtifactManifest
from artfs.sdk.prefetch import prefetch
from artfs.sdk.run import Run

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
    "link_model",
    "log_artifact",
    "log_model",
    "prefetch",
    "upsert_artifact",
    "use_artifact",
    "use_model",
]
