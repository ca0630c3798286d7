"""Stacks of TIFF pages and the file beside them that says how large a voxel is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.formats.images import tiff
from napari_nnunet.formats.images.files import read_labels, read_volume, write_labels
from napari_nnunet.schema.geometry import BESIDE, Geometry

STACK = Geometry(spacing=(3.0, 0.5, 0.25))


@pytest.mark.parametrize(
    ("name", "there", "expected"),
    [
        ("a_0000.tif", (), "a.json"), ("a_0000.tif", ("a_0000.json",), "a_0000.json"),
        ("a_0000.tif", ("a.json", "a_0000.json"), "a.json"), ("a.tif", (), "a.json"),
        ("Zelle größer 1_0003.TIFF", (), "Zelle größer 1.json"), ("a.b_0000.tif", (), "a.b.json"),
    ],
)  # fmt: skip
def test_the_file_beside_is_that_of_the_case_or_else_of_the_channel(tmp_path, name, there, expected):
    for other in there:
        (tmp_path / other).touch()
    assert tiff.sidecar(tmp_path / name) == tmp_path / expected


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 6, 7), (3, 6, 7), (4, 6, 7), (9, 6, 3)])
def test_stacks_of_any_size_come_back_with_their_spacing(tmp_path, shape):
    labels = (np.arange(np.prod(shape)) % 3).astype(np.uint8).reshape(shape)
    path = tmp_path / "Fall ä 1.tif"
    write_labels(labels, STACK, path)
    back, geometry = read_labels(path)
    np.testing.assert_array_equal(back, labels)
    assert geometry == STACK.model_copy(update={"spacing_source": BESIDE})
    assert tiff.header(path) == ((1, *shape), 1, geometry)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Fall ä 1.json", "Fall ä 1.tif"]


def test_without_a_file_beside_the_size_of_a_voxel_is_not_known(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 7), np.uint8))
    _, geometry = tiff.read(tmp_path / "a.tif")
    assert geometry == Geometry(spacing=(1, 1, 1), spacing_known=False)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "{}", '{"spacing": null}', '{"spacing": 1}', '{"spacing": [1, "x", 1]}', '{"spacing": [[1], 1, 1]}',
     '{"spacing": []}', '{"spacing": [1, 1, 1, 1]}', '{"spacing": [1, 1, 0]}', '{"spacing": [1, 1, -1]}',
     '{"spacing": [1, 1, NaN]}', '{"spacing": [1, 1, Infinity]}', '{"spacing": "123"}'],
)  # fmt: skip
def test_a_file_beside_without_three_sizes_is_an_error_that_names_it(tmp_path, content):
    tifffile.imwrite(tmp_path / "a_0000.tif", np.zeros((5, 6, 7), np.uint8))
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ImageError, match=r"a\.json"):
        read_volume([tmp_path / "a_0000.tif"])


def test_pages_of_four_axes_and_single_ones_are_no_stack(tmp_path):
    for shape in ((6, 7), (2, 5, 6, 7)):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), photometric="minisblack")
        with pytest.raises(ImageError, match=f"has {len(shape)} dimensions; a stack has 3"):
            tiff.read(tmp_path / "a.tif")


def test_no_spacing_is_left_beside_a_stack_that_could_not_be_written(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_labels(np.zeros((5, 6, 7), np.uint8), STACK, tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())


def test_the_spacing_beside_is_replaced_with_its_stack(tmp_path):
    for spacing in ((1.0, 1.0, 1.0), (2.0, 3.0, 4.0)):
        write_labels(np.zeros((5, 6, 7), np.uint8), Geometry(spacing=spacing), tmp_path / "a.tif")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"spacing": [2.0, 3.0, 4.0]}


def test_planes_that_are_named_time_points_are_read_as_slices_and_that_is_said(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 6, 7), np.uint8), imagej=True, metadata={"axes": "TYX"})
    volume = read_volume([path], reader="Tiff3DIO")
    assert volume.shape == (4, 6, 7)
    assert "named time points (T), and were read as the slices" in volume.geometry.remarks[0]


@pytest.mark.parametrize(("axes", "shape", "said"), [
    ("CYX", (2, 8, 9), "its planes are named channels (C), and were read as the slices of a stack (z)"),
    ("CYX", (5, 8, 9), "its planes are named channels (C), and were read as the slices of a stack (z)"),
    ("TYX", (5, 8, 9), "its planes are named time points (T), and were read as the slices of a stack (z)"),
    ("YXC", (8, 9, 2), "its axes are named YXC, and were read as z, y, x"),
])  # fmt: skip
def test_axes_that_are_no_stack_are_said(tmp_path, axes, shape, said):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros(shape, np.uint8), photometric="minisblack", metadata={"axes": axes})
    assert read_volume([path]).geometry.remarks == (said,)


def test_a_size_that_nobody_said_is_not_said_by_what_is_written(tmp_path):
    unknown = Geometry(spacing=(1.0, 1.0, 1.0), spacing_known=False)
    write_labels(np.zeros((5, 6, 7), np.uint8), unknown, tmp_path / "a.tif")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["spacing"] == [1.0, 1.0, 1.0]  # for nnU-Net
    assert not read_labels(tmp_path / "a.tif")[1].spacing_known
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    (tmp_path / "a.json").write_text(json.dumps({**content, "spacing": [5.0, 1.0, 1.0]}))  # by hand, as it was told
    geometry = read_labels(tmp_path / "a.tif")[1]
    assert geometry.spacing_known and geometry.spacing == (5.0, 1.0, 1.0)
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [1, 1, 1], "napari_nnunet_assumed": True}))
    assert not read_labels(tmp_path / "a.tif")[1].spacing_known  # of an earlier version
    write_labels(np.zeros((5, 6, 7), np.uint8), Geometry(spacing=(1.0, 1.0, 1.0)), tmp_path / "a.tif")
    assert read_labels(tmp_path / "a.tif")[1].spacing_known


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_stacks_packed_by_lzw_are_read_without_imagecodecs(tmp_path, monkeypatch, kind):
    array = np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(kind)
    planes = [Image.fromarray(plane) for plane in array]
    planes[0].save(tmp_path / "a.tif", save_all=True, append_images=planes[1:], compression="tiff_lzw")

    def lacking(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lacking)  # wherever this runs
    np.testing.assert_array_equal(read_volume([tmp_path / "a.tif"]).array[0], array)
    rgb = np.arange(6 * 7 * 3).reshape(6, 7, 3).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_volume([tmp_path / "rgb.tif"]).array, np.moveaxis(rgb, -1, 0))
    planes[0].convert("L").save(tmp_path / "b.tif", compression="jpeg")
    with pytest.raises(
        ImageError, match=r"b\.tif is compressed with JPEG, which only the package imagecodecs " r"can decompress"
    ):
        read_volume([tmp_path / "b.tif"])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("uint16", {"byteorder": ">"}),
        ("uint8", {"extratags": [(274, "H", 1, 6, True)]}),
        ("uint8", {"metadata": {"bits": 4}}),
        ("uint8", {"photometric": "rgb", "planarconfig": "separate"}),
        ("uint8", {"photometric": "rgb", "planarconfig": "contig", "extrasamples": ["assocalpha"]}),
    ],
    ids=["big endian", "turned", "4 bits", "planes of colours", "transparent"],
)
def test_what_pillow_would_change_is_refused_where_imagecodecs_lacks(tmp_path, monkeypatch, kind, options):
    """Pages are stored plainly and said to be packed by LZW, for this is not about unpacking."""
    shape = {"contig": (8, 10, 4), "separate": (3, 8, 10)}.get(options.get("planarconfig"), (8, 10))
    array = np.random.default_rng(0).integers(0, 16, shape).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    if "metadata" in options:
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
            file.pages[0].tags[258].overwrite(4)
    monkeypatch.setattr(tifffile.TiffPage, "compression", property(lambda _: 5, lambda *_: None))

    def lacking(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lacking)
    if options == {"byteorder": ">"}:
        np.testing.assert_array_equal(read_volume([tmp_path / "a.tif"]).array[0], array)
    else:
        with pytest.raises(ImageError, match="which only the package imagecodecs can decompress"):
            read_volume([tmp_path / "a.tif"])


def test_a_picture_in_colours_is_no_stack_but_planes_may_be_slices(tmp_path):
    path, colours = tmp_path / "c.tif", np.arange(3 * 20 * 24).reshape(3, 20, 24).astype(np.uint8)
    tifffile.imwrite(path, np.moveaxis(colours, 0, -1), photometric="rgb")
    for look in (tiff.read, tiff.header):
        with pytest.raises(ImageError, match=r"a picture in colours \(YXS: 20 x 24 x 3\)"):
            look(path)
    tifffile.imwrite(path, colours, compression="zlib")  # as nnU-Net writes labels with three slices
    array, geometry = tiff.read(path)
    np.testing.assert_array_equal(array[0], colours)
    assert geometry.remarks == tiff.header(path).geometry.remarks
    if open_axes(path) == "SYX":
        assert "its planes are named colours (S), and were read as the slices of a stack (z)" in geometry.remarks


def open_axes(path):
    with tifffile.TiffFile(path) as file:
        return file.series[0].axes
