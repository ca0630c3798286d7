"""DICOM opens as layers, and labels are saved as a DICOM-SEG of the series they lie on."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed: it comes with napari-nnunet[dicom]")

import napari
from napari.components import ViewerModel
from napari.layers import Image, Labels
from pydicom import dcmread
from pydicom.uid import generate_uid

from dicom_files import boxed, header, save, write_enhanced, write_series, write_structures
from napari_nnunet.errors import ImageError
from napari_nnunet.formats.dicom.output import SegmentationOutput
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.widgets.files import dicom_layers, place
from napari_nnunet.widgets.files.reader import get_reader
from napari_nnunet.widgets.files.writer import write_labels_layer

DOCUMENT = "1.2.840.10008.5.1.4.1.1.104.1"  # a document
IMAGE = np.arange(4 * 6 * 7, dtype=np.int16).reshape(4, 6, 7)
PAINTED = np.zeros(IMAGE.shape, np.uint8)
PAINTED[1, 2:4, 3] = 3


@pytest.fixture
def viewer(monkeypatch):
    viewer = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    return viewer


def opened(path):
    return [
        {"image": Image, "labels": Labels}[kind](data, **keywords)
        for data, keywords, kind in get_reader(str(path))(str(path))
    ]


def saved(layer, path):
    data, attributes, _ = layer.as_layer_data_tuple()
    assert write_labels_layer(str(path), data, attributes) == [str(path)]
    return path


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)])
def test_painted_labels_come_back_where_they_were_painted(viewer, tmp_path, direction, copied):
    (image,) = opened(write_series(tmp_path / "series", IMAGE, direction=direction))
    np.testing.assert_array_equal(image.data, IMAGE)
    viewer.add_layer(image)
    features = {"index": [0, 3], "name": ["background", "Liver"]}
    place = {name: getattr(image, name) for name in ("scale", "translate", "affine", "units")}
    labels = Labels(PAINTED, **place, features=features, metadata=dict(image.metadata) if copied else {})
    (back,) = opened(saved(labels, tmp_path / "seg.dcm"))
    np.testing.assert_array_equal(back.data, PAINTED)
    np.testing.assert_allclose(back.data_to_world((3, 5, 6)), labels.data_to_world((3, 5, 6)), atol=1e-4)
    assert list(back.features["name"]) == ["background", "label 1", "label 2", "Liver"]


def test_painted_labels_are_structures_where_the_name_says_so(viewer, tmp_path):
    (image,) = opened(write_series(tmp_path / "series", IMAGE))
    viewer.add_layer(image)
    place = {name: getattr(image, name) for name in ("scale", "translate", "affine", "units")}
    labels = Labels(PAINTED, **place, features={"index": [0, 3], "name": ["background", "Liver"]})
    (back,) = opened(saved(labels, tmp_path / "liver.rtstruct.dcm"))
    np.testing.assert_array_equal(back.data > 0, PAINTED > 0)
    assert "Liver" in list(back.features["name"])
    viewer.layers.clear()
    with pytest.raises(ImageError, match="An RTSTRUCT references the series it was made from, but no open DICOM"):
        saved(labels, tmp_path / "other.rtstruct.dcm")


def test_structures_are_those_that_are_painted_or_named(viewer, tmp_path):
    (image,) = opened(write_series(tmp_path / "series", IMAGE))
    viewer.add_layer(image)
    features = {"index": [0, 7], "name": ["background", "Liver"]}
    place = {name: getattr(image, name) for name in ("scale", "translate", "affine", "units")}
    labels = Labels(np.where(PAINTED > 0, 255, 0).astype(np.uint8), **place, features=features)
    file = dcmread(saved(labels, tmp_path / "all.rtstruct.dcm"))
    assert [item.ROIName for item in file.StructureSetROISequence] == ["Liver", "label 255"]


def test_a_file_with_frames_opens_and_is_the_source_of_labels(viewer, tmp_path):
    (image,) = opened(write_enhanced(tmp_path / "ct.dcm", IMAGE, order=[3, 1, 0, 2]))
    viewer.add_layer(image)
    labels = Labels(PAINTED, scale=image.scale, translate=image.translate, units=image.units)
    (back,) = opened(saved(labels, tmp_path / "seg.dcm"))
    np.testing.assert_array_equal(back.data, PAINTED)


def test_labels_over_no_series_or_beside_it_are_not_given_one(viewer, tmp_path):
    (image,) = opened(write_series(tmp_path / "series", IMAGE))
    labels = Labels(PAINTED, scale=image.scale, translate=image.translate, units=image.units, name="mine")
    with pytest.raises(ImageError, match=r"no open DICOM series lies on the voxels of 'mine'. Open the series"):
        saved(labels, tmp_path / "seg.dcm")
    viewer.add_layer(image)
    labels.translate = labels.translate + 5
    with pytest.raises(ImageError, match="no open DICOM series lies on"):
        saved(labels, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_two_series_on_the_same_voxels_are_not_chosen_between(viewer, tmp_path):
    for name in "ab":
        viewer.add_layer(opened(write_series(tmp_path / name, IMAGE))[0])
    image = viewer.layers[0]
    labels = Labels(PAINTED, scale=image.scale, translate=image.translate, units=image.units, name="mine")
    with pytest.raises(ImageError, match=r"2 open DICOM series lie on the voxels of 'mine'. Close all but one"):
        saved(labels, tmp_path / "seg.dcm")


@pytest.mark.parametrize(
    ("data", "said"),
    [(PAINTED[0], "is not a volume"), (PAINTED * 0, "holds no label"), (PAINTED[None], "is not a volume")],
)
def test_what_is_no_segmentation_is_refused(viewer, tmp_path, data, said):
    with pytest.raises(ImageError, match=said):
        saved(Labels(data), tmp_path / "seg.dcm")


def test_segments_that_overlap_are_layers_of_their_own(tmp_path):
    scheme = LabelScheme(labels={"background": 0, "whole": (1, 3), "core": (3,)}, regions_class_order=(1, 3))
    series = write_series(tmp_path / "series", IMAGE)
    SegmentationOutput.of(scheme, None, None).write(PAINTED, tmp_path / "a.dcm", source=series, series="", kinds=None)
    layers = opened(tmp_path / "a.dcm")
    assert [layer.name for layer in layers] == ["a whole", "a core"]
    for layer in layers:
        np.testing.assert_array_equal(layer.data, PAINTED > 0)


def test_dicom_that_is_neither_image_nor_labels_is_left_to_others(tmp_path):
    assert get_reader(str(save(header(DOCUMENT), tmp_path / "report.dcm"))) is None
    (tmp_path / "no.dcm").write_bytes(b"no")
    assert get_reader(str(tmp_path / "no.dcm")) is None


@pytest.fixture
def warned(monkeypatch):
    """What napari's notifications would have shown."""
    said = []
    for module in (dicom_layers, place):
        monkeypatch.setattr(module, "show_warning", said.append)
    return said


def test_structures_that_are_dropped_on_their_open_series_lie_over_it(viewer, tmp_path, warned):
    uid = generate_uid()
    (image,) = opened(write_series(tmp_path / "series", IMAGE, series=uid, direction=(0, 1, 0, 0, 0, -1)))
    drawn = {"Liver": boxed((1, 1, 2), (3, 4, 6)), "seed": boxed((0, 5, 5), (2, 6, 6))}
    (tmp_path / "plan").mkdir()
    file = write_structures(tmp_path / "plan" / "rs.dcm", uid, drawn, direction=(0, 1, 0, 0, 0, -1), change=_open_one)
    with pytest.raises(ImageError, match="which is not in .*plan. Open that series first, or put it beside them.$"):
        opened(file)
    viewer.add_layer(image)
    (labels,) = opened(file)
    assert isinstance(labels, Labels) and list(labels.features["name"]) == ["background", "Liver"]
    assert set(np.unique(labels.data)) == {0, 3} and labels.data[1:3, 1:4, 2:6].all()
    np.testing.assert_allclose(labels.data_to_world((3, 5, 6)), image.data_to_world((3, 5, 6)), atol=1e-4)
    assert warned == ["rs.dcm: seed have no closed contours and were left out."]


def test_a_folder_with_a_series_and_what_was_drawn_in_it_opens_as_both(viewer, tmp_path, warned):
    uid = generate_uid()
    folder = write_series(tmp_path / "export", IMAGE, series=uid)
    write_structures(folder / "RS.1.dcm", uid, {"Liver": boxed((1, 1, 2), (3, 4, 6))})
    write_structures(folder / "RS.2.dcm", generate_uid(), {"Liver": boxed((1, 1, 2), (3, 4, 6))})  # of another one
    image, labels = opened(folder)
    assert isinstance(image, Image) and isinstance(labels, Labels)
    assert len(warned) == 1 and "RS.2.dcm holds structures that were drawn in the series" in warned[0]
    (tmp_path / "alone").mkdir()
    (folder / "RS.1.dcm").rename(tmp_path / "alone" / "RS.1.dcm")
    viewer.add_layer(image)
    (again,) = opened(tmp_path / "alone")
    np.testing.assert_array_equal(again.data, labels.data)


def _open_one(file):
    file.ROIContourSequence[1].ContourSequence[0].ContourGeometricType = "POINT"
    del file.ROIContourSequence[1].ContourSequence[1:]
