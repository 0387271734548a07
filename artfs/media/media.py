"""A value that is a file with a few words about it: what images, sound, film and pages have in common."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from artfs.media.artifact import Artifact
from artfs.media.files import MediaFile, StoredFile
from artfs.media.value import WBValue


class Media(WBValue):
    """A value whose bytes are a file of the artifact, named by its ``path`` and ``sha256`` in the JSON."""

    directory: ClassVar[str]
    """Where the artifact keeps the files of this type."""

    def __init__(self, file: MediaFile, caption: str | None = None) -> None:
        self.file = file
        self.caption = caption

    @property
    def sha256(self) -> str:
        """SHA-256 of the file in hexadecimal (of the URI, for a remote file)."""
        return self.file.sha256

    @property
    def path(self) -> str:
        """A local file with the content, fetched now if it is in an artifact."""
        return self.file.local_path()

    def to_json(self, artifact: Artifact) -> dict[str, Any]:
        """``_type``, ``path`` and ``sha256`` of the file, and the ``caption`` if there is one."""
        json_obj: dict[str, Any] = {
            "_type": self.artifact_type,
            "path": self.file.add_to(artifact, self.directory),
            "sha256": self.sha256,
        }
        if self.caption is not None:
            json_obj["caption"] = self.caption
        return json_obj

    @classmethod
    def from_json(cls, json_obj: Any, artifact: Artifact) -> Self:
        """The value whose file is an entry of ``artifact``; nothing is fetched yet."""
        value = cls.__new__(cls)
        value.restore(json_obj, artifact)
        return value

    def restore(self, json_obj: dict[str, Any], artifact: Artifact) -> None:
        """Make this object, which was not initialised, the value that ``json_obj`` describes."""
        file = StoredFile(artifact.get_path(json_obj["path"]), json_obj["sha256"])
        Media.__init__(self, file, json_obj.get("caption"))

    def same(self, other: Any) -> bool:
        return bool(self.sha256 == other.sha256 and self.caption == other.caption)
