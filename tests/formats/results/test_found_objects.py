"""Objects that were found are written with their kinds, also where a format has too few numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.dataset.objects import kinds_beside
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.results.objects import found_file, found_files, write_found
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import ObjectScheme

ONE = ObjectScheme(kinds={"cell": (1, 2)}, width=1, unit=1)
PLANE = Geometry(spacing=(1.0, 1.0))


@pytest.mark.parametrize(("ending", "most"), [(".png", 65535), (".bmp", 254)])
def test_more_objects_than_a_format_has_numbers_go_into_another_file(tmp_path: Path, ending: str, most: int) -> None:
    objects = np.arange(1, most + 3, dtype=np.uint32)[None].repeat(2, axis=0)
    path = tmp_path / f"a{ending}"
    fitting = np.minimum(objects, most)
    assert write_found(fitting, {}, ONE, PLANE, path, "NaturalImage2DIO") == path
    np.testing.assert_array_equal(read_labels(path)[0], fitting)
    other = write_found(objects, {}, ONE, PLANE, path, "NaturalImage2DIO")
    assert other.name == "a.tif" and not path.exists()  # what is not up to date is gone
    np.testing.assert_array_equal(read_labels(other)[0], objects)


def test_kinds_are_told_where_the_objects_are_in_another_file(tmp_path: Path) -> None:
    two = ObjectScheme(kinds={"cell": (1, 2), "debris": (3, 4)}, width=1, unit=1)
    objects = np.arange(1, 300, dtype=np.uint32)[None]
    kinds = {number: "debris" if number % 3 == 0 else "cell" for number in range(1, 300)}
    path = write_found(objects, kinds, two, PLANE, tmp_path / "a.bmp", "NaturalImage2DIO")
    labels = {"background": 0, "cell core": 1, "cell border": 2, "debris core": 3, "debris border": 4}
    content = {"channel_names": {"0": "x"}, "labels": labels, "numTraining": 0, "file_ending": ".bmp"}
    (tmp_path / "dataset.json").write_text(json.dumps(two.write_into(content)))
    assert path.name == "a.tif" and kinds_beside(path, objects, PLANE) == kinds


def test_a_folder_may_hold_single_cases_in_a_format_with_more_numbers(tmp_path: Path) -> None:
    few, many = np.array([[0, 1, 2]], np.uint32), np.arange(66_000, dtype=np.uint32)[None]
    for name, objects in (("a", few), ("b", many)):
        write_found(objects, {}, ONE, PLANE, tmp_path / f"{name}.png", "NaturalImage2DIO")
    assert {case: path.name for case, path in found_files(tmp_path).items()} == {"a": "a.png", "b": "b.tif"}
    assert found_file(tmp_path / "b.png").name == "b.tif" and found_file(tmp_path / "a.png").name == "a.png"
    write_found(few, {}, ONE, PLANE, tmp_path / "b.png", "NaturalImage2DIO")
    assert found_file(tmp_path / "b.png").name == "b.png"
    with pytest.raises(ImageError, match=r"b\.png and b\.tif of the same case; remove"):
        found_files(tmp_path)
    write_found(few, {}, ONE, PLANE, tmp_path / "c.bmp", "NaturalImage2DIO")
    with pytest.raises(ImageError, match="several kinds"):
        found_files(tmp_path)


def test_kinds_are_told_by_a_mask_beside(tmp_path: Path) -> None:
    two = ObjectScheme(kinds={"cell": (1, 2), "debris": (3, 4)}, width=1, unit=1, values={5: "debris", 7: "cell"})
    objects = np.array([[0, 1, 1, 2, 70_000]], dtype=np.uint32)
    kinds = {1: "cell", 2: "debris", 70_000: "cell"}
    path = write_found(objects, kinds, two, PLANE, tmp_path / "a.tif", None)
    assert read_labels(tmp_path / "kinds" / "a.tif")[0].tolist() == [[0, 7, 7, 5, 7]]
    assert kinds_beside(path, objects, PLANE) == {}  # nothing says what the values mean
    labels = {"background": 0, "cell core": 1, "cell border": 2, "debris core": 3, "debris border": 4}
    content = {"channel_names": {"0": "x"}, "labels": labels, "numTraining": 0, "file_ending": ".tif"}
    (tmp_path / "dataset.json").write_text(json.dumps(two.write_into(content)))
    assert kinds_beside(path, objects, PLANE) == kinds
