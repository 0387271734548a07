"""Audio: a sound."""

from __future__ import annotations

import os
from typing import Any

from artfs.errors import InvalidMedia
from artfs.media.artifact import Artifact
from artfs.media.dtypes import Plain, register
from artfs.media.extras import load
from artfs.media.files import LocalFile, RemoteFile, is_remote, temporary_path, user_file
from artfs.media.media import Media


class Audio(Media):
    """A sound: a path, a ``gs``, ``s3`` or ``http(s)`` URI, or samples, which need a ``sample_rate`` in Hz.

    Samples are stored as a WAV file. Raises InvalidMedia, SourceUnreadable, MissingExtra.
    """

    artifact_type = "audio-file"
    directory = "media/audio"

    def __init__(self, data_or_path: Any, sample_rate: int | None = None, caption: str | None = None) -> None:
        if is_remote(data_or_path):
            super().__init__(RemoteFile(data_or_path), caption)
        elif isinstance(data_or_path, str | os.PathLike):
            super().__init__(user_file(data_or_path), caption)
        else:
            if sample_rate is None:
                raise InvalidMedia(what="Audio", why="samples need a sample_rate")
            path = temporary_path(".wav")
            load("soundfile", "Audio of samples").write(path, data_or_path, sample_rate)
            super().__init__(LocalFile(path, temporary=True), caption)

    def to_json(self, artifact: Artifact) -> dict[str, Any]:
        """W&B's ``audio-file``. The caption is there even if it is None: W&B cannot read one without."""
        return {**super().to_json(artifact), "caption": self.caption}


register(Plain(Audio.artifact_type), Audio, names=[Audio.artifact_type])
