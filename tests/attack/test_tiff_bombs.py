"""TIFFs that name more than they hold: planes, strips and steps that are not there, and strips that unpack to gigabytes."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile

from napari_nnunet.errors import ImageError, NnunetError
from napari_nnunet.formats.images.files import read_header, read_labels, read_volume
from napari_nnunet.formats.images.label_note import LabelNote
from napari_nnunet.formats.images.pages import strips
from napari_nnunet.formats.large.opening import open_image
from napari_nnunet.formats.results.noted import read_noted
from napari_nnunet.schema.geometry import Geometry

_PLANE = np.full((64, 64), 7, np.uint8)
_HALF = zlib.compress(_PLANE[:32].tobytes())


def tiff(path, strips, rows=64, counts=None):
    """Write a picture of 64 x 64 bytes in strips of deflate, however many there are."""
    places = np.cumsum([8, *map(len, strips)])[:-1].tolist()
    packed, many = b"".join(strips), len(strips)
    lists = 8 + len(packed)
    table = struct.pack(f"<{2 * many}I", *places, *(counts or map(len, strips))) if many > 1 else b""
    where, sizes = (lists, lists + 4 * many) if many > 1 else (places[0], (counts or [len(strips[0])])[0])
    tags = ((256, 1, 64), (257, 1, 64), (258, 1, 8), (259, 1, 8), (262, 1, 1), (273, many, where), (277, 1, 1), (278, 1, rows),
            (279, many, sizes))  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", lists + len(table)) + packed + table + directory)
    return path


def test_strips_that_are_not_there_are_no_background(tmp_path):
    with pytest.raises(ImageError, match=r"is damaged: parts of 1 of its planes are not in the file"):
        read_volume([tiff(tmp_path / "a.tif", [_HALF], rows=32)])


def test_strips_that_hold_nothing_are_told(tmp_path):
    path = tiff(tmp_path / "a.tif", [_HALF, b""], rows=32)
    volume = read_volume([path])
    assert volume.geometry.remarks == ("1 of its strips or tiles hold nothing, and were read as 0",)
    assert open_image([path]).geometry.remarks == volume.geometry.remarks
    assert read_volume([tiff(path, [_HALF, _HALF], rows=32)]).geometry.remarks == ()


@pytest.mark.parametrize("act", [lambda path: read_volume([path]), read_labels])
def test_a_strip_that_would_fill_memory_is_not_unpacked(tmp_path, monkeypatch, act):
    monkeypatch.setattr(strips, "available_memory", lambda: 1000)
    monkeypatch.setattr(strips, "CERTAIN", 1e6)
    path = tiff(tmp_path / "a.tif", [zlib.compress(bytes(64 << 20))])
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"a strip of 4,096 bytes unpacks to more\. Export it again"):
            act(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_strip_that_packs_well_is_read_whatever_memory_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(strips, "available_memory", lambda: 1000)
    monkeypatch.setattr(strips, "CERTAIN", 1.0)
    assert (read_volume([tiff(tmp_path / "a.tif", [zlib.compress(_PLANE.tobytes())])]).array == 7).all()


def ome(path, **changes):
    """Write a stack of three planes whose OME-XML is changed."""
    tifffile.imwrite(path, np.ones((3, 9, 8), np.uint8), metadata={"axes": "ZYX"}, ome=True)
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    tifffile.tiffcomment(path, text.encode())
    return path


@pytest.mark.parametrize(("old", "new"), [
    ('SizeT="1"', 'SizeT="900000000"'), ('SizeC="1"', 'SizeC="1e30"'), ('PlaneCount="3"', 'PlaneCount="900000000"'),
    ("</OME>", '<StructuredAnnotations><XMLAnnotation ID="a" Namespace="modulo"><Value><Modulo><ModuloAlongZ Type="angle" '
     'Start="0" End="1000000000" Step="1"/></Modulo></Value></XMLAnnotation></StructuredAnnotations></OME>'),
])  # fmt: skip
@pytest.mark.parametrize("act", [read_header, lambda path: read_volume([path]), lambda path: open_image([path])])
def test_words_about_planes_take_no_memory(tmp_path, old, new, act):
    path = ome(tmp_path / "a.ome.tif", change=(old, new))
    begun = time.process_time()
    with pytest.raises(ImageError, match="its OME-XML counts more planes than any file has"):
        act(path)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("change", [('SizeZ="3"', 'SizeZ="5"'), ('SizeT="1"', 'SizeT="2"')])
def test_planes_that_only_words_name_are_no_background(tmp_path, change):
    path = ome(tmp_path / "a.ome.tif", change=change)
    for act in (lambda: read_volume([path]), lambda: open_image([path])):
        with pytest.raises(NnunetError):
            act()
    assert read_volume([ome(tmp_path / "b.ome.tif")]).array.shape == (1, 3, 9, 8)


def test_labels_with_a_note_hold_no_more_than_memory(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((3, 9, 8), np.uint8), compression="zlib", metadata={"axes": "TYX"})
    note = LabelNote(axes="TYX", shape=(3, 9, 8), geometry=Geometry(spacing=(1.0, 1.0)))
    assert read_noted(path, note)[0].shape == (3, 9, 8)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"a\.tif"):
        read_noted(path, note)


def test_a_plane_of_another_size_is_not_read_first(tmp_path):
    for number in (1, 2):
        tifffile.imwrite(tmp_path / f"p{number}.tif", np.ones((9, 8), np.uint8), compression="zlib")
    image, path = open_image([tmp_path]), tmp_path / "p2.tif"
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[name].overwrite(60_000)
    with pytest.raises(ImageError, match="60000 x 60000 pixels of type uint8, the first plane has 9 x 8"):
        image.read([(0, 2), (0, 9), (0, 8)])


def test_dates_in_the_names_of_planes_are_not_counted_up_to(tmp_path):
    for number in (1, 2, 20240131120000):
        tifffile.imwrite(tmp_path / f"p{number}.tif", np.ones((9, 8), np.uint8))
    begun = time.process_time()
    assert open_image([tmp_path]).shape == (3, 9, 8)
    assert time.process_time() - begun < 5


def chain(path, pages, back, big=False):
    """Write a picture of 8 x 8 bytes in so many pages, the last of which leads back to one."""
    places, count = ("<Q", "<Q") if big else ("<I", "<H")
    entry = struct.Struct("<HHQQ" if big else "<HHII")
    begin = 16 if big else 8
    tags = ((256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, begin), (277, 1), (278, 8), (279, 64))
    listed = struct.pack(count, len(tags)) + b"".join(entry.pack(tag, 4, 1, value) for tag, value in tags)
    size, first = len(listed) + struct.calcsize(places), begin + 64
    ends = [first + size * (i + 1) for i in range(pages - 1)] + [0 if back is None else first + size * back]
    head = (b"II+\0\10\0\0\0" if big else b"II*\0") + struct.pack(places, first)
    path.write_bytes(head + bytes(64) + b"".join(listed + struct.pack(places, end) for end in ends))
    return path


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("pages", "back"), [(2, 1), (5, 0), (101, 0), (300, 0), (300, 299), (300, 150)])
def test_pages_that_lead_in_a_circle_are_a_sentence(tmp_path, pages, back, big):
    path = chain(tmp_path / "a.tif", pages, back, big)
    folder = tmp_path / "planes"
    folder.mkdir()
    acts = (read_header, lambda path: read_volume([path]), read_labels, lambda path: open_image([path]),
            lambda path: open_image([path.rename(folder / "p1.tif").parent]))  # fmt: skip
    for act in acts:
        with pytest.raises(ImageError, match="its pages lead in a circle|circular reference"):
            act(path)


@pytest.mark.parametrize("big", [False, True])
def test_pages_that_end_are_read(tmp_path, big):
    assert read_volume([chain(tmp_path / "a.tif", 300, None, big)]).array.shape == (1, 300, 8, 8)
