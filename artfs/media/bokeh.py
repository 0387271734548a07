"""Bokeh: a plot."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from artfs.errors import InvalidMedia
from artfs.media.dtypes import Plain, register
from artfs.media.extras import load
from artfs.media.files import LocalFile, temporary_path, user_file
from artfs.media.media import Media


class Bokeh(Media):
    """A plot: a Bokeh model or document, or the path of a ``.bokeh.json`` file.

    Raises InvalidMedia, SourceUnreadable, MissingExtra.
    """

    artifact_type = "bokeh-file"
    directory = "media/bokeh"

    def __init__(self, data_or_path: Any) -> None:
        if isinstance(data_or_path, str | os.PathLike):
            file = user_file(data_or_path)
            if not file.path.endswith(".bokeh.json"):
                raise InvalidMedia(what="Bokeh", why="its file ends in .bokeh.json")
        else:
            file = LocalFile(temporary_path(".bokeh.json"), temporary=True)
            Path(file.path).write_text(json.dumps(_to_json(_document(data_or_path))), "utf-8")
        super().__init__(file)

    @property
    def b_obj(self) -> Any:
        """The plot as a Bokeh document, read now."""
        document = load("bokeh.document", "a Bokeh plot")
        return document.Document.from_json(json.loads(Path(self.path).read_bytes()))


def _document(plot: Any) -> Any:
    document = load("bokeh.document", "a Bokeh plot")
    if isinstance(plot, document.Document):
        return plot
    if not isinstance(plot, load("bokeh.model", "a Bokeh plot").Model):
        raise InvalidMedia(what="Bokeh", why="it is made of a Bokeh model, a document or a path")
    whole = document.Document()
    whole.add_root(plot)
    return document.Document.from_json(_to_json(whole))  # read once more, as W&B does, the text does not change again


def _to_json(document: Any) -> Any:
    try:
        return document.to_json(deferred=False)
    except TypeError:  # before Bokeh 3.9
        return document.to_json()


register(Plain(Bokeh.artifact_type), Bokeh, names=[Bokeh.artifact_type])
