"""What artifacts may hold, made with either client (``w`` is ``wandb`` or ``artfs.media``), and what a reader sees."""

import datetime
import hashlib
import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

LABELS = {0: "person", 1: "car"}


def types(w):
    return w.data_types if w.__name__ == "wandb" else w


def scalars(w, artifact):
    table = w.Table(columns=["number", "text", "flag", "mixed"], data=[[1, "a", True, None], [2.5, "é", False, None]])
    table.add_data(float("nan"), None, True, "now a text")
    artifact.add(table, "scalars")


def page_example(w, artifact):
    artifact.add(w.Table(columns=["a", "b", "c"], data=[(i, i * 2, 2**i) for i in range(10)]), "my_table")


def nested(w, artifact):
    table = w.Table(columns=["list", "dict", "tuple"])
    table.add_data([1, 2, 3], {"x": 1, "y": ["z"]}, (1.5, 2.5))
    table.add_data([4], {"x": 2, "y": []}, (3.5,))
    artifact.add(table, "nested")


def times(w, artifact):
    table = w.Table(columns=["aware", "naive", "day", "numpy"])
    table.add_data(
        datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC),
        datetime.datetime(2024, 2, 29, 12, 30, 1, 500000),  # noqa: DTZ001  # naive on purpose
        datetime.date(1999, 12, 31),
        np.datetime64("2020-01-01T00:00:00.000000001", "ns"),
    )
    table.add_data(None, None, None, None)
    artifact.add(table, "times")


def numpy_scalars(w, artifact):
    data = [[np.float32(0.5), np.int64(7), np.bool_(True), np.float64("nan")]]
    artifact.add(w.Table(columns=["f", "i", "b", "nan"], data=data), "numpy_scalars")


def typed(w, artifact):
    table = w.Table(
        columns=["a", "b", "c"], data=[[1, "x", True]], dtype=[int, str, bool], optional=[True, False, True]
    )
    table.add_column("d", [1.5])
    table.cast("c", bool)
    artifact.add(table, "typed")


def mixed(w, artifact):
    artifact.add(w.Table(columns=["a"], data=[[1], ["x"], [[1]]], allow_mixed_types=True), "mixed")


def ndarray(w, artifact):
    artifact.add(w.Table(columns=["a", "b"], data=np.arange(6).reshape(3, 2)), "ndarray")


def embeddings(w, artifact):
    artifact.add(w.Table(columns=["e"], data=[[np.arange(3)], [np.arange(3) + 1]]), "embeddings")


def arrays(w, artifact):
    artifact.add(w.Table(columns=["a"], data=[[np.arange(6).reshape(2, 3)], [np.ones((2, 3))]]), "arrays")


def dataframe(w, artifact):
    import pandas as pd

    frame = pd.DataFrame(
        {"n": [1, 2], "f": [0.5, float("nan")], "s": ["a", "b"], "t": pd.to_datetime(["2020-01-01", "2021-01-01"])}
    )
    artifact.add(w.Table(dataframe=frame), "dataframe")


def linked(w, artifact):
    people = w.Table(columns=["id", "name"], data=[["p1", "Ann"], ["p2", "Bob"]])
    people.set_pk("id")
    visits = w.Table(columns=["who", "row"], data=[["p1", people.index_ref(0)], ["p2", people.index_ref(1)]])
    visits.set_fk("who", people, "id")
    artifact.add(people, "people")
    artifact.add(visits, "visits")


def class_ids(w, artifact):
    classes = w.Classes([{"id": 0, "name": "person"}, {"id": 1, "name": "car"}])
    table = w.Table(columns=["label"], data=[[0], [1]], dtype=classes.get_type())
    artifact.add(table, "class_ids")


def classes(w, artifact):
    artifact.add(w.Classes([{"id": 0, "name": "person"}, {"id": 1, "name": "car", "color": "red"}]), "classes")


def pixels(height=6, width=8, channels=3):
    return (np.arange(height * width * channels) % 256).reshape(height, width, channels).astype(np.uint8)


def image_of_array(w, artifact):
    artifact.add(w.Image(pixels(), caption="a caption", grouping=3), "rgb")
    artifact.add(w.Image(pixels(channels=4)), "rgba")
    artifact.add(w.Image(pixels(channels=1)), "gray")


def image_of_pil(w, artifact):
    artifact.add(w.Image(PILImage.fromarray(pixels()), file_type="bmp"), "pil")


def image_of_path(w, artifact):
    path = Path(tempfile.mkdtemp()) / "photo.png"
    PILImage.fromarray(pixels()).save(path)
    artifact.add(w.Image(str(path)), "photo")


def annotated(w):
    boxes = [
        {"position": {"minX": 0.1, "maxX": 0.2, "minY": 0.3, "maxY": 0.4}, "class_id": 1, "scores": {"acc": 0.5}},
        {"position": {"middle": [3, 2], "width": 1, "height": 2}, "domain": "pixel", "class_id": 0, "box_caption": "x"},
    ]
    mask = (np.arange(48) % 2).reshape(6, 8)
    return w.Image(
        pixels(),
        boxes={"predictions": {"box_data": boxes, "class_labels": LABELS}},
        masks={"truth": {"mask_data": mask, "class_labels": LABELS}},
        classes=[{"id": 5, "name": "sky"}],
    )


def image_annotated(w, artifact):
    artifact.add(annotated(w), "annotated")


def image_table(w, artifact):
    table = w.Table(columns=["id", "image"])
    table.add_data(1, w.Image(pixels(), caption="first"))
    table.add_data(2, annotated(w))
    table.add_data(3, None)
    artifact.add(table, "images")


def mask(w, artifact):
    artifact.add(types(w).ImageMask({"mask_data": np.eye(4, dtype=np.uint8), "class_labels": LABELS}, "truth"), "mask")


def boxes(w, artifact):
    box = {"position": {"minX": 0, "maxX": 1, "minY": 0, "maxY": 1}, "class_id": 4}
    artifact.add(types(w).BoundingBoxes2D({"box_data": [box]}, "truth"), "boxes")


def audio(w, artifact):
    artifact.add(w.Audio(np.sin(np.arange(800) / 10), sample_rate=8000, caption="a tone"), "tone")


def audio_without_caption(w, artifact):
    artifact.add(w.Audio(np.zeros(80), sample_rate=8000), "silence")


def video(w, artifact):
    artifact.add(w.Video(io.BytesIO(b"GIF89a, or nearly"), format="gif", caption="a film"), "film")


def html(w, artifact):
    artifact.add(w.Html("<html><body>hello</body></html>"), "page")
    artifact.add(w.Html("<h1>plain</h1>", inject=False), "plain")
    artifact.add(w.Html("<html><head><title>t</title></head></html>"), "head")


def points(w, artifact):
    artifact.add(w.Object3D(np.arange(12).reshape(4, 3) / 2), "points")
    scene = {"type": "lidar/beta", "points": np.zeros((2, 3)), "boxes": np.array([{"label": "b"}])}
    artifact.add(w.Object3D(scene), "scene")


def molecule(w, artifact):
    artifact.add(w.Molecule(io.StringIO("ATOM"), caption="water", file_type="pdb"), "water")


def bokeh(w, artifact):
    from bokeh.plotting import figure

    plot = figure(title="p")
    plot.line([1, 2, 3], [3, 1, 2])
    artifact.add(types(w).Bokeh(plot), "plot")


def joined(w, artifact):
    left = w.Table(columns=["id", "a"], data=[[1, "x"]])
    right = w.Table(columns=["id", "b"], data=[[1, "y"]])
    artifact.add(left, "left")
    artifact.add(right, "right")
    artifact.add(types(w).JoinedTable("left.table.json", right, "id"), "joined")


def joined_unnamed(w, artifact):
    tables = [w.Table(columns=["id", "a"], data=[[number, "x"]]) for number in range(2)]
    artifact.add(types(w).JoinedTable(*tables, ["id", "id"]), "joined")


def partitioned(w, artifact):
    artifact.add(w.Table(columns=["a"], data=[[1], [2]]), "parts/1")
    artifact.add(w.Table(columns=["a"], data=[[3]]), "parts/2")
    artifact.add(types(w).PartitionedTable("parts"), "whole")


CASES = [
    scalars, page_example, nested, times, numpy_scalars, typed, mixed, ndarray, embeddings, arrays, dataframe, linked,
    class_ids, classes, image_of_array, image_of_pil, image_of_path, image_annotated, image_table, mask, boxes, audio,
    audio_without_caption, video, html, points, molecule, bokeh, joined,
    joined_unnamed, partitioned,
]  # fmt: skip


def describe(value):
    """What a reader sees of a value, in terms that both clients share."""
    kind = type(value).__name__
    if kind == "Table":
        return kind, value.columns, [[describe(cell) for cell in row] for row in value.data]
    if kind == "PartitionedTable":
        return kind, value.parts_path, [[describe(cell) for cell in row] for _, row in value.iterrows()]
    if kind == "JoinedTable":
        get = vars(value).get
        parts = (get("_table1", get("table1")), get("_table2", get("table2")))
        return kind, get("_join_key", get("join_key")), *map(describe, parts)
    if kind == "Classes":
        return kind, list(vars(value).get("_class_set", vars(value).get("class_set")))
    if kind == "BoundingBoxes2D":
        return kind, vars(value).get("_val", vars(value).get("boxes"))
    if kind == "Bokeh":
        return kind, [type(root).__name__ for root in value.b_obj.roots]
    if kind in {"Image", "ImageMask", "Audio", "Video", "Html", "Object3D", "Molecule"}:
        return (kind, *_describe_media(value))
    if isinstance(value, np.ndarray):
        return "array", value.tolist()
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return str(value) if isinstance(value, str) else value


def _describe_media(value):
    is_wandb = type(value).__module__.startswith("wandb")
    path = value._path if is_wandb else value.path
    yield hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if type(value).__name__ in {"Image", "Audio"}:  # the client drops the captions of the others when it reads them
        yield value._caption if is_wandb else value.caption
    if type(value).__name__ == "Image":
        yield value._grouping if is_wandb else value.grouping
        yield (value._width, value._height) if is_wandb else (value.width, value.height)
        yield value.image.tobytes()
        boxes, masks = (value._boxes, value._masks) if is_wandb else (value.boxes, value.masks)
        yield {key: describe(layer) for key, layer in (boxes or {}).items()}
        yield {key: describe(layer) for key, layer in (masks or {}).items()}
        classes = value._classes if is_wandb else value.classes
        # The client mixes class_<id> of the boxes in; the order is its own affair.
        names = {} if classes is None else {item["id"]: item["name"] for item in describe(classes)[1]}
        yield sorted(names.items())
