"""Images and masks of an import may be DICOM: series, files with frames, DICOM-SEG."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed: it comes with napari-nnunet[dicom]")

from dicom_files import write_enhanced, write_series
from helpers import smooth_image, write_nifti
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.dicom.output import SegmentationOutput
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.jobs.dataset.look import look, look_at
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest, LookRequest

pytestmark = pytest.mark.usefixtures("in_one_process")
SCHEME = LabelScheme(labels={"background": 0, "liver": 1, "cyst": 2})


def case(seed):
    image = (smooth_image((6, 20, 22), seed=seed)[0] * 3).astype(np.int16)
    return image, np.digitize(image, [330, 420]).astype(np.uint8)


def test_series_and_frames_with_dicom_seg_become_a_dataset(tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    masks.mkdir()
    for seed, name in enumerate(("anna", "berta", "carla")):
        image, labels = case(seed)
        source = (
            write_enhanced(images / f"{name}.dcm", image) if name == "berta" else write_series(images / name, image)
        )
        write = SegmentationOutput.of(SCHEME, None, None).write
        write(labels, masks / f"{name}.dcm", source=source, series="", kinds=None)
    request = ImportFoldersRequest(images=images, masks=masks, name="Livers", channel_names=("CT",))
    folder = drain(import_folders(Workspace.at(tmp_path / "w"), request))
    dataset = open_dataset(folder)
    assert [entry.name for entry in dataset.cases] == ["anna", "berta", "carla"]
    for seed, entry in enumerate(dataset.cases):
        image, labels = case(seed)
        volume = read_volume(entry.images)
        np.testing.assert_array_equal(volume.array[0], image)
        np.testing.assert_allclose(volume.geometry.spacing, (2.0, 0.6, 0.5), rtol=1e-5)
        np.testing.assert_array_equal(read_labels(entry.label)[0], labels)


def segmented(folder, name, seed, classes, values):
    """Write a series and a DICOM-SEG with its own numbers for classes; returns the labels with the classes' order."""
    image, labels = case(seed)
    source = write_series(folder / "images" / name, image)
    (folder / "masks").mkdir(exist_ok=True)
    own = np.choose(labels, [0, *values]).astype(np.uint8)
    write = SegmentationOutput.of(LabelScheme(labels={"background": 0, **classes}), None, None).write
    write(own, folder / "masks" / f"{name}.dcm", source=source, series="", kinds=None)
    return labels


def imported(folder, **changes):
    given = {"images": folder / "images", "masks": folder / "masks", "name": "Livers", "channel_names": ("CT",)}
    return open_dataset(drain(import_folders(Workspace.at(folder / "w"), ImportFoldersRequest(**{**given, **changes}))))


def test_classes_have_the_names_of_their_segments_and_one_value_each_whatever_number_a_file_has(tmp_path):
    expected = {
        "anna": segmented(tmp_path, "anna", 0, {"Liver": 1, "cyst": 2}, (1, 2)),
        "berta": segmented(tmp_path, "berta", 1, {"cyst": 1, "liver": 2}, (2, 1)),
        "carla": np.where(segmented(tmp_path, "carla", 2, {"cyst": 1}, (0, 1)) == 2, 2, 0),
    }
    dataset = imported(tmp_path)
    assert dataset.info.labels.labels == {"background": 0, "Liver": 1, "cyst": 2}
    for entry in dataset.cases:
        np.testing.assert_array_equal(read_labels(entry.label)[0], expected[entry.name])


def test_segments_get_the_classes_of_the_dataset_that_they_join_by_name(tmp_path):
    segmented(tmp_path / "first", "anna", 0, {"liver": 1, "cyst": 2}, (1, 2))
    imported(tmp_path / "first")
    labels = segmented(tmp_path / "more", "berta", 1, {"Cyst": 1, "LIVER": 2}, (2, 1))
    (tmp_path / "first" / "w").rename(tmp_path / "more" / "w")
    dataset = imported(tmp_path / "more", dataset="1", name="", channel_names=())
    found = next(entry for entry in dataset.cases if entry.name == "berta")
    np.testing.assert_array_equal(read_labels(found.label)[0], labels)
    segmented(tmp_path / "other", "carla", 2, {"spleen": 1, "cyst": 2}, (1, 2))
    (tmp_path / "more" / "w").rename(tmp_path / "other" / "w")
    with pytest.raises(DatasetError, match="no class spleen; it has background, liver, cyst"):
        imported(tmp_path / "other", dataset="1", name="", channel_names=())


def test_words_about_values_win_over_names_of_segments(tmp_path):
    segmented(tmp_path, "anna", 0, {"liver": 1, "cyst": 2}, (1, 2))
    dataset = imported(tmp_path, mapping={"1,2": "organ"})
    assert dataset.info.labels.labels == {"background": 0, "organ": 1}


def test_look_shows_dicom_or_why_it_cannot_be_read(tmp_path):
    image, labels = case(0)
    series = write_series(tmp_path / "series", image)
    assert look_at(series).spacing == pytest.approx((2.0, 0.6, 0.5))
    assert look_at(write_enhanced(tmp_path / "ct.dcm", image)).shape == (6, 20, 22)
    SegmentationOutput.of(SCHEME, None, None).write(labels, tmp_path / "seg.dcm", source=series, series="", kinds=None)
    shown = look_at(tmp_path / "seg.dcm")
    assert (shown.shape, shown.error) == ((6, 20, 22), "")
    assert any("its segments are" in remark for remark in shown.remarks)
    assert "lean by" in look_at(write_series(tmp_path / "leaning", image, lean=1.0)).error


def test_a_look_at_a_folder_shows_each_of_its_series_and_other_images_in_it(tmp_path):
    """Prediction takes every series of a folder for a case."""
    for number in (2, 11):
        array = (smooth_image((6, 20, 22), seed=number)[0] * 3).astype(np.int16)
        numbered = partial(setattr_of, number)
        write_series(tmp_path, array, name=f"a{number}_{{}}.dcm", change=numbered)
    write_nifti(tmp_path / "b.nii.gz", array)
    found = drain(look(LookRequest.of(paths=[tmp_path])))
    assert [entry.error for entry in found] == [""] * 3
    assert [entry.path.name for entry in found] == [tmp_path.name, tmp_path.name, "b.nii.gz"]
    told = [f"this is series {number} (CT, 6 slices)" for number in (2, 11)]
    assert [entry.remarks for entry in found[:2]] == [(text,) for text in told]
    assert found[0].values != found[1].values


def setattr_of(number, file, _):
    file.SeriesNumber = number
