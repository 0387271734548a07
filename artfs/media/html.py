"""Html: a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from artfs.errors import InvalidMedia
from artfs.media.dtypes import Plain, register
from artfs.media.files import LocalFile, temporary_path, user_file
from artfs.media.media import Media

_HEAD: Final = (
    '<base target="_blank"><link rel="stylesheet" type="text/css" href="https://app.wandb.ai/normalize.css" />'
)
"""What W&B puts into a page's head; the same here, or equal pages would not be equal files."""


class Html(Media):
    """A page: the path of a file that ends in ``.html``, the text itself, or something to read it from.

    ``inject`` adds W&B's style sheet; ``data_is_not_path`` takes a text for the page whatever it looks like. Raises
    InvalidMedia.
    """

    artifact_type = "html-file"
    directory = "media/html"

    def __init__(self, data: Any, inject: bool = True, data_is_not_path: bool = False) -> None:
        if _is_page(data) and not data_is_not_path:
            if not inject:
                super().__init__(user_file(data))
                return
            text = Path(data).read_text("utf-8")
        elif isinstance(data, str):
            text = data
        elif hasattr(data, "read"):
            if hasattr(data, "seek"):
                data.seek(0)
            text = data.read()
        else:
            raise InvalidMedia(what="Html", why="it is made of a text, a file that ends in .html, or a stream")
        path = temporary_path(".html")
        Path(path).write_text(_with_head(text) if inject else text, "utf-8")
        super().__init__(LocalFile(path, temporary=True))

    @property
    def html(self) -> str:
        """The page's text."""
        return Path(self.path).read_text("utf-8")


def _is_page(data: Any) -> bool:
    if not isinstance(data, str | os.PathLike):
        return False
    name = os.fspath(data)
    return os.path.splitext(name)[1] == ".html" and os.path.isfile(name)


def _with_head(text: str) -> str:
    if "<head>" in text:
        return text.replace("<head>", f"<head>{_HEAD}", 1).strip()
    if "<html>" in text:
        return text.replace("<html>", f"<html><head>{_HEAD}</head>", 1).strip()
    return f"{_HEAD}{text}".strip()


register(Plain(Html.artifact_type), Html, names=[Html.artifact_type])
