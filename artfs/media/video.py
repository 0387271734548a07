"""Video: a film."""

from __future__ import annotations

import os
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from artfs.errors import InvalidMedia
from artfs.media.artifact import Artifact
from artfs.media.dtypes import Plain, register
from artfs.media.extras import load
from artfs.media.files import LocalFile, temporary_path, user_file
from artfs.media.media import Media

_FORMATS: Final = ("gif", "mp4", "webm", "ogg")
_CODECS: Final = {".mp4": "libx264", ".webm": "libvpx-vp9", ".ogg": "libtheora"}
_PIXELS: Final = {1: "gray", 3: "rgb24", 4: "rgba"}
_FRAMES_PER_SECOND: Final = 4
"""W&B's default."""


class Video(Media):
    """A film: a path, bytes in a BytesIO, or an array of frames (time, channel, height, width).

    An array with one more dimension in front is a batch, whose films are shown side by side. Bytes and arrays need a
    ``format``: gif, mp4, webm or ogg. ``fps`` is for arrays, 4 unless given. Raises InvalidMedia, SourceUnreadable,
    MissingExtra (arrays need Pillow as gif, else imageio-ffmpeg: the extra ``video``).
    """

    artifact_type = "video-file"
    directory = "media/videos"

    def __init__(
        self,
        data_or_path: Any,
        caption: str | None = None,
        fps: int | None = None,
        format: str | None = None,  # noqa: A002  # the documented name
    ) -> None:
        self.width: int | None = None
        self.height: int | None = None
        if isinstance(data_or_path, str | os.PathLike):
            file = user_file(data_or_path)
            _check_format(os.path.splitext(file.path)[1][1:].lower())
        else:
            file = LocalFile(temporary_path(f".{_check_format(format)}"), temporary=True)
            if isinstance(data_or_path, BytesIO):
                Path(file.path).write_bytes(data_or_path.read())
            else:
                frames = _tiled(data_or_path)
                self.height, self.width = frames.shape[1:3]
                _encode(frames, file.path, fps or _FRAMES_PER_SECOND)
        super().__init__(file, caption)

    def to_json(self, artifact: Artifact) -> dict[str, Any]:
        """W&B's ``video-file``."""
        json_obj = super().to_json(artifact)
        if self.width is not None:
            json_obj["width"], json_obj["height"] = self.width, self.height
        return json_obj

    def restore(self, json_obj: dict[str, Any], artifact: Artifact) -> None:
        super().restore(json_obj, artifact)
        self.width, self.height = json_obj.get("width"), json_obj.get("height")


def _check_format(name: str | None) -> str:
    if name not in _FORMATS:
        raise InvalidMedia(what="Video", why=f"its format must be one of {', '.join(_FORMATS)}, not {name!r}")
    return name


def _tiled(data: Any) -> Any:
    """Frames as time, height, width, channel in bytes: a batch in rows and columns, padded to a power of two."""
    numpy = load("numpy", "a Video of an array")
    frames = numpy.asarray(data.numpy() if hasattr(data, "numpy") else data)
    if frames.ndim not in {4, 5}:
        raise InvalidMedia(what="Video", why="an array needs the dimensions time, channel, height and width")
    if frames.shape[-3] not in _PIXELS or 0 in frames.shape:
        raise InvalidMedia(what="Video", why="an array needs frames, of 1, 3 or 4 channels")
    frames = frames.reshape(-1, *frames.shape[-4:]).astype(numpy.uint8)
    batch, time, channels, height, width = frames.shape
    count = 1 << (batch - 1).bit_length()
    frames = numpy.concatenate((frames, numpy.zeros((count - batch, *frames.shape[1:]), numpy.uint8)))
    rows = 1 << (batch.bit_length() - 1) // 2
    columns = count // rows
    frames = frames.reshape(rows, columns, time, channels, height, width).transpose(2, 0, 4, 1, 5, 3)
    return frames.reshape(time, rows * height, columns * width, channels)


def _encode(frames: Any, path: str, fps: int) -> None:
    if path.endswith(".gif"):
        pil = load("PIL.Image", "a GIF")
        images = [pil.fromarray(frame.squeeze(-1) if frame.shape[-1] == 1 else frame) for frame in frames]
        images[0].save(path, save_all=True, append_images=images[1:], duration=1000 // fps, loop=0)
    else:
        _run_ffmpeg(frames, path, fps)


def _run_ffmpeg(frames: Any, path: str, fps: int) -> None:
    _, height, width, channels = frames.shape
    program = load("imageio_ffmpeg", "a Video of an array", extra="video").get_ffmpeg_exe()
    source = ["-f", "rawvideo", "-pix_fmt", _PIXELS[channels], "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    # 4:2:0 is what browsers play; it needs even sides.
    target = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-c:v", _CODECS[os.path.splitext(path)[1]]]
    done = subprocess.run(  # noqa: S603  # the program that the package brings
        [program, "-v", "error", *source, *target, path], input=frames.tobytes(), capture_output=True, check=False
    )
    if done.returncode:
        raise InvalidMedia(what="Video", why=f"it cannot be encoded ({done.stderr.decode(errors='replace').strip()})")


register(Plain(Video.artifact_type), Video, names=[Video.artifact_type])
