"""Media: tables, images, sounds and the like, which artifacts hold in W&B's formats."""

from artfs.media.audio import Audio
from artfs.media.bokeh import Bokeh
from artfs.media.classes import Classes
from artfs.media.html import Html
from artfs.media.image import Image
from artfs.media.joined import JoinedTable, PartitionedTable
from artfs.media.overlays import BoundingBoxes2D, ImageMask
from artfs.media.shapes import Molecule, Object3D
from artfs.media.table import Table
from artfs.media.value import WBValue, add_value, get_value, value_path
from artfs.media.video import Video

__all__ = [
    "Audio",
    "Bokeh",
    "BoundingBoxes2D",
    "Classes",
    "Html",
    "Image",
    "ImageMask",
    "JoinedTable",
    "Molecule",
    "Object3D",
    "PartitionedTable",
    "Table",
    "Video",
    "WBValue",
    "add_value",
    "get_value",
    "value_path",
]
