"""Images and masks of an import may be DICOM: series, files with frames, DICOM-SEG."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed: it comes with napari-nnunet[dicom]")

from dicom_files import write_enhanced, write_series
from helpers import smooth_image
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.dicom.output import SegmentationOutput
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.jobs.dataset.look import look_at
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest

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


def test_look_shows_dicom_or_why_it_cannot_be_read(tmp_path):
    image, labels = case(0)
    series = write_series(tmp_path / "series", image)
    assert look_at(series).spacing == pytest.approx((2.0, 0.6, 0.5))
    assert look_at(write_enhanced(tmp_path / "ct.dcm", image)).shape == (6, 20, 22)
    SegmentationOutput.of(SCHEME, None, None).write(labels, tmp_path / "seg.dcm", source=series, series="", kinds=None)
    assert "it is a segmentation" in look_at(tmp_path / "seg.dcm").error
    assert "lean by" in look_at(write_series(tmp_path / "leaning", image, lean=1.0)).error
