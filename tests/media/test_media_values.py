"""Media values in an artifact: what they hold comes back, what does not fit is refused, nothing is fetched in vain."""

import io
import subprocess
import sys

import numpy as np
import pytest
from media import media_cases
from media.media_cases import describe, pixels
from PIL import Image as PILImage

from artfs.errors import InvalidInput, InvalidMedia, InvalidPath, MissingExtra, SourceUnreadable
from artfs.media import (
    Audio,
    Bokeh,
    BoundingBoxes2D,
    Classes,
    Html,
    Image,
    ImageMask,
    Molecule,
    Object3D,
    Table,
    Video,
    value_path,
)

BOX = {"position": {"minX": 0, "maxX": 1, "minY": 0, "maxY": 1}, "class_id": 4}


# -- names ----------------------------------------------------------------------------------------------------------


def test_a_value_is_found_by_its_name_with_or_without_suffix(artifact):
    path = artifact.add(Table(columns=["a"], data=[[1]]), "dir/my_table").path
    assert path == "dir/my_table.table.json"
    assert artifact.get("dir/my_table") == artifact.get(path) == Table(columns=["a"], data=[[1]])
    assert value_path(artifact, "dir/my_table") == path
    assert artifact.get("dir/other") is None
    assert value_path(artifact, "dir/other") is None


def test_a_value_added_under_a_taken_name_changes_nothing_unless_asked(artifact):
    artifact.add(Table(columns=["a"], data=[[1]]), "t")
    artifact.add(Table(columns=["a"], data=[[2]]), "t")
    assert artifact.get("t").data == [[1]]
    artifact.add(Table(columns=["a"], data=[[2]]), "t", overwrite=True)
    assert artifact.get("t").data == [[2]]


def test_one_value_can_stand_under_two_names(artifact):
    table = Table(columns=["a"], data=[[1]])
    artifact.add(table, "first")
    table.add_data(2)
    artifact.add(table, "second")
    assert [artifact.get("first").data, artifact.get("second").data] == [[[1]], [[1], [2]]]


def test_tables_below_media_tables_are_named_by_content(artifact):
    first = artifact.add(Table(columns=["a"], data=[[1]]), "media/tables/any").path
    again = artifact.add(Table(columns=["a"], data=[[1]]), "media/tables/other").path
    assert first == again
    assert len(first) == len("media/tables/") + 20 + len(".table.json")


@pytest.mark.parametrize("value", [3, "text", {"_type": "table"}, np.zeros(3)])
def test_what_is_no_media_value_is_a_type_error(artifact, value):
    with pytest.raises(TypeError, match="media type"):
        artifact.add(value, "x")


def test_names_are_paths_inside_the_artifact(artifact):
    with pytest.raises(InvalidPath):
        artifact.add(Classes([]), "../x")
    assert artifact.get("../x") is None


def test_a_damaged_file_is_named(artifact):
    (artifact.root).mkdir()
    (artifact.root / "bad.table.json").write_text('{"_type": "table"}')
    (artifact.root / "worse.table.json").write_text("{")
    for name in ("bad", "worse"):
        with pytest.raises(InvalidMedia, match=f"{name}.table.json"):
            artifact.get(name)


def test_a_value_that_json_cannot_carry_leaves_no_file(artifact):
    with pytest.raises(InvalidMedia, match="object"):
        artifact.add(Table(columns=["a"], data=[[object()]]), "t")
    assert artifact.get("t") is None


# -- tables ---------------------------------------------------------------------------------------------------------


def test_columns_rows_and_index():
    table = Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]])
    table.add_column("c", np.array([0.5, 1.5]))
    table.add_computed_columns(lambda index, row: {"d": row["a"] + index})
    assert table.get_column("d") == [1, 3]
    assert table.get_column("c", convert_to="numpy").tolist() == [0.5, 1.5]
    assert [(int(index), index.get_row()["b"], row[1]) for index, row in table.iterrows()] == [
        (0, "x", "x"),
        (1, "y", "y"),
    ]
    assert table.get_index()[1].get_row() == {"a": 2, "b": "y", "c": 1.5, "d": 3}
    assert table.get_dataframe()["b"].tolist() == ["x", "y"]


def test_a_dataframe_and_back():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": pandas.array([1, None], dtype="Int64"), "s": ["a", None]})
    table = Table(dataframe=frame)
    assert table.columns == ["n", "s"]
    assert Table(data=frame) == table


def test_missing_values_of_pandas_are_null(artifact):
    pandas = pytest.importorskip("pandas")
    artifact.add(Table(columns=["a", "b"], data=[[pandas.NA, pandas.NaT]]), "t")
    assert artifact.get("t").data == [[None, None]]


def test_the_old_names_of_things():
    table = Table(rows=[["in", "out", "expected"]])
    table.add_row("in2", "out2", "expected2")
    assert table.columns == ["Input", "Output", "Expected"]
    assert table.get_column("Output") == ["out", "out2"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Table(columns=["a"], data=[[1, 2]]),
        lambda: Table(columns=["a"], data=[[1], ["text"]]),
        lambda: Table(columns=["a"], data=[[None]], optional=False),
        lambda: Table(columns=["a"], data=[["1"]], dtype=int),
        lambda: Table(columns=["a", "b"], dtype=[int]),
        lambda: Table(columns=["a", "a"]),
        lambda: Table(columns=[1, "1"]),
        lambda: Table(columns=[1.5]),
        lambda: Table(columns="ab"),
        lambda: Table(columns=["a"], data="text"),
        lambda: Table(log_mode="INCREMENTAL"),
        lambda: Table(columns=["a"], data=[[1]]).add_column("b", [1, 2]),
        lambda: Table(columns=["a"], data=[[1]]).add_column("a", [1]),
        lambda: Table(columns=["a"], data=[[1], [2]]).add_column("b", [1, "x"]),
        lambda: Table(columns=["a"]).get_column("b"),
        lambda: Table(columns=["a"], data=[["x"]]).cast("a", int),
        lambda: Table(columns=["a"]).index_ref(0),
        lambda: Table(columns=["a"], dtype=Classes([{"id": 1, "name": "x"}]).get_type(), data=[[2]]),
    ],
)
def test_what_a_table_refuses(make):
    with pytest.raises(InvalidMedia) as caught:
        make()
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_a_refused_row_or_column_leaves_the_table_as_it_was():
    table = Table(columns=["a", "b"], data=[[1, 2]])
    with pytest.raises(InvalidMedia):
        table.add_data(1, "text")
    with pytest.raises(InvalidMedia):
        table.add_column("c", [None])
    assert table == Table(columns=["a", "b"], data=[[1, 2]])


def test_arrays_come_back_as_arrays_with_their_type(artifact):
    small, gaps = np.arange(6, dtype=np.int16).reshape(2, 3), [np.zeros((2, 2)), None]
    table = Table(columns=["whole", "gaps"], data=[[small, gaps[0]], [small + 1, gaps[1]]])
    artifact.add(table, "t")
    back = artifact.get("t")
    assert back == table
    assert back.data[0][0].dtype == np.int16


def test_equal_tables_are_equal_files(new_artifact):
    for name in ("one", "two"):
        artifact = new_artifact(name)
        media_cases.arrays(sys.modules["artfs.media"], artifact)
        media_cases.image_table(sys.modules["artfs.media"], artifact)
    one, two = new_artifact("one"), new_artifact("two")
    assert one.paths() == two.paths()
    assert all((one.root / path).read_bytes() == (two.root / path).read_bytes() for path in one.paths())


def test_no_row_is_dropped(artifact):
    rows = 200_001  # one more than W&B writes
    table = Table(columns=["a"], dtype=int)
    table.data = [[number] for number in range(rows)]
    artifact.add(table, "long")
    assert len(artifact.get("long").data) == rows


def test_keys_lead_to_the_rows_of_the_other_table(artifact):
    media_cases.linked(sys.modules["artfs.media"], artifact)
    visits = artifact.get("visits")
    assert visits.get_column("row")[1].get_row() == {"id": "p2", "name": "Bob"}
    key = visits.get_column("who")[0]
    assert (key, key.column, key.table.columns) == ("p1", "id", ["id", "name"])


@pytest.mark.parametrize(
    "break_it",
    [
        lambda people: people.set_pk("name"),
        lambda people: people.cast("id", str),
        lambda people: people.set_fk("name", people, "id"),
        lambda people: Table(columns=["who"]).set_fk("who", people, "nothing"),
    ],
)
def test_keys_stay_keys(break_it):
    people = Table(columns=["id", "name"], data=[["p1", "Ann"]])
    people.set_pk("id")
    with pytest.raises(InvalidMedia):
        break_it(people)


def test_a_joined_table_needs_tables_that_exist(artifact):
    media = sys.modules["artfs.media"]
    with pytest.raises(InvalidMedia, match="add that table first"):
        artifact.add(media.JoinedTable("a.table.json", "b.table.json", "id"), "j")
    with pytest.raises(ValueError, match="join_key"):
        media.JoinedTable("a.table.json", "b.table.json", ["a", "b", "c"])
    with pytest.raises(ValueError, match="a table is"):
        media.JoinedTable("a.txt", "b.table.json", "id")


def test_tables_of_another_artifact_can_be_joined(new_artifact):
    media = sys.modules["artfs.media"]
    one, two = new_artifact("one"), new_artifact("two")
    entry = one.add(Table(columns=["id"], data=[[1]]), "t")
    two.add(media.JoinedTable(entry, one.get("t"), "id"), "j")
    assert two.get("j").table1 == two.get("j").table2 == one.get("t")


def test_parts_with_other_columns_are_refused(artifact):
    media = sys.modules["artfs.media"]
    artifact.add(Table(columns=["a"], data=[[1]]), "parts/1")
    artifact.add(Table(columns=["b"], data=[[1]]), "parts/2")
    artifact.add(media.PartitionedTable("parts"), "whole")
    with pytest.raises(InvalidMedia, match="columns"):
        list(artifact.get("whole").iterrows())


# -- images and other files -----------------------------------------------------------------------------------------


def test_reading_a_table_fetches_no_picture(artifact):
    media_cases.image_table(sys.modules["artfs.media"], artifact)
    table = artifact.get("images")
    assert not [path for path in artifact.downloads if path.endswith(".png")]
    assert np.array_equal(np.asarray(table.data[0][1].image), pixels())
    assert len([path for path in artifact.downloads if path.endswith(".png")]) == 1


def test_a_value_from_another_artifact_takes_its_files_along(new_artifact):
    one, two = new_artifact("one"), new_artifact("two")
    media_cases.image_table(sys.modules["artfs.media"], one)
    one.downloads.clear()
    two.add(one.get("images"), "images")
    assert not [path for path in one.downloads if path.endswith(".png")], "pictures are referred to, not copied"
    assert two.paths() == one.paths()
    assert describe(two.get("images")) == describe(one.get("images"))
    assert (two.root / "images.table.json").read_bytes() == (one.root / "images.table.json").read_bytes()


def test_a_file_that_is_in_the_artifact_already_is_not_added_twice(artifact, tmp_path):
    path = tmp_path / "photo.png"
    PILImage.fromarray(pixels()).save(path)
    artifact.add_file(str(path), "photos/1.png")
    artifact.add(Image(path), "photo")
    assert artifact.paths() == ["photo.image-file.json", "photos/1.png"]


def test_two_files_of_one_name_do_not_collide(artifact, tmp_path):
    for number in (1, 2):
        path = tmp_path / str(number) / "photo.png"
        path.parent.mkdir()
        PILImage.fromarray(pixels() + number).save(path)
        artifact.add(Image(path), f"photo{number}")
    assert artifact.get("photo1").image.tobytes() != artifact.get("photo2").image.tobytes()


@pytest.mark.parametrize("make", [Image, Audio])
def test_a_remote_file_becomes_a_reference(artifact, make):
    uri = "s3://bucket/media/a.png"
    artifact.add(make(uri), "remote")
    assert list(artifact.references.values()) == [uri]
    assert artifact.get("remote").sha256 == make(uri).sha256
    with pytest.raises(SourceUnreadable):
        _ = make(uri).path


def test_an_image_of_an_image_keeps_the_picture_and_drops_the_layers():
    image = media_cases.annotated(sys.modules["artfs.media"])
    copy = Image(image, caption="copy")
    assert (copy.caption, copy.boxes, copy.masks) == ("copy", {}, {})
    assert copy.image.tobytes() == image.image.tobytes()
    assert image.to_data_array() == pixels().tolist()


def test_images_are_equal_by_their_pixels():
    assert Image(pixels(), file_type="png") == Image(pixels(), file_type="bmp")
    assert Image(pixels()) != Image(pixels() + 1)
    assert Image(pixels()) != Image(pixels(), caption="x")


def test_class_ids_up_to_255_stand_in_a_mask(artifact):
    data = np.array([[0, 127, 128, 255]])
    artifact.add(ImageMask({"mask_data": data}), "mask")
    with PILImage.open(artifact.get("mask").path) as picture:
        assert np.asarray(picture).tolist() == data.tolist()


def test_names_of_boxes_survive(artifact):
    artifact.add(media_cases.annotated(sys.modules["artfs.media"]), "image")
    assert artifact.get("image").boxes["predictions"].class_labels == {0: "person", 1: "car"}


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 2, 5), (2,), (2, 2, 3, 3)])
def test_arrays_that_are_no_pictures(shape):
    with pytest.raises(InvalidMedia):
        Image(np.zeros(shape))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Image(pixels(), file_type="tiff"),
        lambda: Image(pixels(), boxes=[BOX]),
        lambda: BoundingBoxes2D({"box_data": {}}),
        lambda: BoundingBoxes2D({"box_data": [{"position": {"minX": 0}}]}),
        lambda: BoundingBoxes2D({"box_data": [{**BOX, "class_id": "x"}]}),
        lambda: BoundingBoxes2D({"box_data": [{**BOX, "scores": {"a": "b"}}]}),
        lambda: BoundingBoxes2D({"box_data": [{**BOX, "scores": 3}]}),
        lambda: BoundingBoxes2D({"box_data": [{**BOX, "box_caption": 3}]}),
        lambda: BoundingBoxes2D({"box_data": [BOX], "class_labels": {"x": "y"}}),
        lambda: ImageMask({"mask_data": np.zeros(3)}),
        lambda: ImageMask({"mask_data": np.full((2, 2), 256)}),
        lambda: Classes([{"id": 1}]),
        lambda: Audio(np.zeros(3)),
        lambda: Video(np.zeros((2, 3, 4, 4))),
        lambda: Video(np.zeros((3, 4, 4)), format="gif"),
        lambda: Video(np.zeros((2, 2, 4, 4)), format="gif"),
        lambda: Video(np.zeros((0, 3, 4, 4)), format="gif"),
        lambda: Video(io.BytesIO(b""), format="avi"),
        lambda: Html(3),
        lambda: Object3D(np.zeros((3, 5))),
        lambda: Object3D({"type": "other"}),
        lambda: Object3D(io.StringIO("x")),
        lambda: Object3D(3),
        lambda: Molecule(io.StringIO("x"), file_type="obj"),
        lambda: Bokeh(3),
    ],
)
def test_what_media_refuse(make):
    with pytest.raises(InvalidMedia):
        make()


@pytest.mark.parametrize("make", [Image, Audio, lambda path: ImageMask({"path": path})])
def test_a_file_that_is_not_there(make, tmp_path):
    with pytest.raises(InvalidInput, match=r"nothing\.png"):
        make(str(tmp_path / "nothing.png"))


def test_boxes_without_classes_cannot_be_stored(artifact):
    boxes = {"b": {"box_data": [{"position": BOX["position"]}]}}
    with pytest.raises(InvalidMedia, match="classes"):
        artifact.add(Image(pixels(), boxes=boxes), "x")
    assert artifact.paths() == []


def test_samples_come_back(artifact):
    soundfile = pytest.importorskip("soundfile")
    samples = np.array([0, 0.5, -0.5])
    artifact.add(Audio(samples, sample_rate=8000, caption="x"), "a")
    data, rate = soundfile.read(artifact.get("a").path)
    assert rate == 8000
    assert np.allclose(data, samples, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "size"), [((3, 3, 4, 6), (6, 4)), ((3, 1, 4, 6), (6, 4)), ((3, 2, 3, 4, 6), (24, 4))]
)
def test_frames_become_a_gif(artifact, shape, size):
    frames = np.zeros(shape, np.uint8)
    frames[..., 1:, :, :, :] = 200
    artifact.add(Video(frames, fps=10, format="gif"), "film")
    video = artifact.get("film")
    assert (video.width, video.height) == size
    with PILImage.open(video.path) as film:
        assert (film.size, film.info["duration"]) == (size, 100)


@pytest.mark.parametrize(("container", "magic"), [("mp4", b"ftyp"), ("webm", b"\x1a\x45\xdf\xa3"), ("ogg", b"OggS")])
def test_frames_become_a_film(artifact, container, magic):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    artifact.add(Video(np.zeros((4, 3, 17, 34), np.uint8), format=container, fps=5), "film")
    path = artifact.get("film").path
    with open(path, "rb") as film:
        assert magic in film.read(16)
    seen = subprocess.run([ffmpeg.get_ffmpeg_exe(), "-i", path], capture_output=True, text=True, check=False).stderr
    assert "34x18" in seen
    assert "5 fps" in seen or "5 tbr" in seen


def test_pages_from_files_and_streams(artifact, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<p>hello</p>")
    artifact.add(Html(page, inject=False), "plain")
    assert artifact.get("plain").html == "<p>hello</p>"
    assert Html(str(page), data_is_not_path=True, inject=False).html == str(page)
    assert Html(io.StringIO("<p>hello</p>")).html.endswith("<p>hello</p>")


def test_shapes_in_files(artifact, tmp_path):
    shape = tmp_path / "cube.obj"
    shape.write_text("v 0 0 0")
    with shape.open() as stream:
        assert Object3D.from_file(stream) == Object3D(shape)
    artifact.add(Object3D(shape, caption="a cube"), "cube")
    assert artifact.get("cube") == Object3D(shape, caption="a cube")
    cloud = Object3D.from_point_cloud(points=[(0, 0, 0)], boxes=[])
    assert cloud == Object3D({"type": "lidar/beta", "points": np.zeros((1, 3), int)})


def test_a_plot_comes_back_and_can_be_stored_twice(artifact):
    figure = pytest.importorskip("bokeh.plotting").figure(title="p")
    artifact.add(Bokeh(figure), "plot")
    assert [type(root).__name__ for root in artifact.get("plot").b_obj.roots] == ["figure"]


# -- extras ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("pillow", lambda: Image(pixels())),
        ("soundfile", lambda: Audio(np.zeros(3), sample_rate=8)),
        ("pandas", lambda: Table(columns=["a"]).get_dataframe()),
        ("numpy", lambda: Table(columns=["a"]).get_column("a", convert_to="numpy")),
        ("bokeh", lambda: Bokeh(3)),
        ("imageio-ffmpeg", lambda: Video(np.zeros((2, 3, 4, 4)), format="mp4")),
    ],
)
def test_a_missing_package_is_named_with_its_extra(package, make, monkeypatch):
    module = {"pillow": "PIL", "imageio-ffmpeg": "imageio_ffmpeg"}.get(package, package)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("sys.meta_path", [_Without(module), *sys.meta_path])
    with pytest.raises(MissingExtra, match=rf"{package}; run: pip install 'artfs\[(media|video)\]'"):
        make()


class _Without:
    def __init__(self, module):
        self.module = module

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_importing_media_imports_no_extra():
    program = "import sys, artfs.media; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "PIL", "pandas", "soundfile", "bokeh", "imageio_ffmpeg"} & set(loaded)
