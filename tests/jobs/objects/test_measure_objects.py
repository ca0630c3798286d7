"""Folders of numbered objects are measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from choices import VOLUME, boxes, write_objects_folder
from napari_nnunet.errors import DatasetError, NnunetError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.images.files import write_image, write_labels
from napari_nnunet.jobs.objects.measure import measure_objects
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import MeasureObjectsRequest
from turned_files import mirror


def test_objects_are_measured_with_the_brightness_of_their_images(tmp_path: Path) -> None:
    objects = write_objects_folder(tmp_path / "o", a=boxes(1, 2), b=boxes(0, 5))
    (tmp_path / "i").mkdir()
    for case in "ab":
        for channel in range(2):
            image = np.full((5, 8, 12), 10.0 * channel + ord(case), dtype=np.float32)
            write_image(image, VOLUME, tmp_path / "i" / f"{case}_000{channel}.nii.gz")
    target = tmp_path / "out" / "table.csv"
    drain(measure_objects(MeasureObjectsRequest(objects=objects, images=tmp_path / "i", target=target)))
    with target.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["object"], row["voxels"]) for row in rows] == [
        ("a", "1", "48"), ("a", "2", "48"), ("b", "5", "48"),
    ]  # fmt: skip
    assert float(rows[0]["volume"]) == pytest.approx(48 * 0.5)
    assert [float(row["mean channel 1"]) for row in rows] == [107, 107, 108]


def test_an_image_that_is_missing_is_named(tmp_path: Path) -> None:
    objects = write_objects_folder(tmp_path / "o", a=boxes(1))
    (tmp_path / "i").mkdir()
    write_image(np.zeros((5, 8, 6), np.float32), VOLUME, tmp_path / "i" / "other_0000.nii.gz")
    request = MeasureObjectsRequest(objects=objects, images=tmp_path / "i", target=tmp_path / "t.csv")
    with pytest.raises(DatasetError, match="no image of a; a_0000"):
        drain(measure_objects(request))
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_kind_of_an_object_is_in_its_line_where_a_mask_tells_it(tmp_path: Path, mirrored: bool) -> None:
    objects = write_objects_folder(tmp_path / "o", a=boxes(3, 9))
    write_objects_folder(objects / "kinds", a=boxes(2, 1))
    if mirrored:
        mirror(objects / "kinds" / "a.nii.gz")
    labels = {"background": 0, "cell core": 1, "cell border": 2, "debris core": 3, "debris border": 4}
    scheme = {"kinds": {"cell": [1, 2], "debris": [3, 4]}, "width": 1.0, "unit": 1.0}
    content = {"channel_names": {"0": "x"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (objects / "dataset.json").write_text(json.dumps({**content, "napari_nnunet_objects": scheme}))
    drain(measure_objects(MeasureObjectsRequest(objects=objects, target=tmp_path / "t.csv")))
    with (tmp_path / "t.csv").open() as file:
        assert [(row["object"], row["kind"]) for row in csv.DictReader(file)] == [("3", "debris"), ("9", "cell")]


def test_pictures_without_a_size_of_a_pixel_are_measured_in_pixels_and_that_is_said(tmp_path: Path) -> None:
    for folder, plane in (("png", Geometry(spacing=(1.0, 1.0), spacing_known=False)), ("nrrd", VOLUME)):
        (tmp_path / folder).mkdir()
        shape = (5, 8, 6)[-plane.ndim :]
        write_labels(np.ones(shape, np.uint8), plane, tmp_path / folder / f"a.{folder}")
        events: list[object] = []
        request = MeasureObjectsRequest(objects=tmp_path / folder, target=tmp_path / "t.csv")
        drain(measure_objects(request), events.append)
        said = [event.text for event in events if isinstance(event, Note)]
        unsized = any("1 of 1 file has no voxel size (a.png)" in text for text in said)
        assert unsized == (folder == "png")


def test_a_negative_number_is_no_object(tmp_path: Path) -> None:
    objects = write_objects_folder(tmp_path / "o", a=boxes(1))
    image = sitk.GetImageFromArray(boxes(1).astype(np.int16) - 1)
    sitk.WriteImage(image, str(objects / "a.nii.gz"))
    with pytest.raises(DatasetError, match="has the value -1; objects are numbered from 1"):
        drain(measure_objects(MeasureObjectsRequest(objects=objects, target=tmp_path / "t.csv")))


def test_fractions_are_no_numbers_of_objects(tmp_path: Path) -> None:
    fractions = np.full((3, 6, 6), 0.25, np.float32)
    fractions[0] = 0
    sitk.WriteImage(sitk.GetImageFromArray(fractions), str(tmp_path / "a.nii.gz"))
    with pytest.raises(
        NnunetError, match=r"has the value 0\.25.*every object has a whole number.*Number the objects"
    ) as raised:
        drain(measure_objects(MeasureObjectsRequest(objects=tmp_path / "a.nii.gz", target=tmp_path / "t.csv")))
    assert "threshold" not in raised.value.message + raised.value.in_window


def said_of(request: MeasureObjectsRequest) -> list[str]:
    said: list[str] = []
    drain(measure_objects(request), lambda event: said.append(event.text) if isinstance(event, Note) else None)
    return said


def test_one_image_is_not_taken_for_those_of_several_cases(tmp_path: Path) -> None:
    objects = write_objects_folder(tmp_path / "o", a=boxes(1), b=boxes(2))
    image = tmp_path / "one.nii.gz"
    write_image(np.zeros((5, 8, 6), np.float32), VOLUME, image)
    request = MeasureObjectsRequest(objects=objects, images=image, target=tmp_path / "t.csv")
    with pytest.raises(DatasetError, match=r"is one image, but there are objects of 2 cases \(a, b\)"):
        drain(measure_objects(request))


def test_masks_of_classes_are_measured_with_a_warning(tmp_path: Path) -> None:
    drawn = np.zeros((1, 30, 40), np.uint8)
    for corner in range(2, 26, 8):
        drawn[0, corner : corner + 4, 3:9] = 255
    request = MeasureObjectsRequest(
        objects=write_objects_folder(tmp_path / "o", a=drawn, b=boxes(1, 2)), target=tmp_path / "t.csv"
    )
    (said,) = said_of(request)
    assert said.startswith("In 1 of 2 files few numbers lie in many separate pieces (a: 3 pieces, 1 number).")


def test_what_is_odd_about_a_file_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    image = nibabel.Nifti1Image(boxes(1).T, np.eye(4))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "o" / "a.nii")
    (said,) = said_of(MeasureObjectsRequest(objects=tmp_path / "o", target=tmp_path / "t.csv"))
    assert said.startswith("a: its header counts in micrometres")
