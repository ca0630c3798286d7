"""A case whose labels are stored in another orientation is shown on its image, and stays there when it is saved."""

from __future__ import annotations

import numpy as np
import pytest
from casework import press, refused, settled, show

from helpers import make_dataset, write_nifti
from napari_nnunet.errors import ImageError
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.grid import Grid, Same, relation
from napari_nnunet.widgets.dataset.cases_dock import _painted
from napari_nnunet.widgets.files import place, reader
from napari_nnunet.widgets.files.reader import case_layers
from napari_nnunet.widgets.training.layers import score_layers
from turned_files import mirror, permute, shift

SHAPE = (6, 40, 32)
SPACING = (2.0, 0.8, 0.8)


def painted(background=0):
    labels = np.full(SHAPE, background, np.uint8)
    labels[2, 5:15, 3:9] = 1
    return labels


@pytest.fixture
def raw(home):
    folder = make_dataset(home, cases=1, shape=SHAPE, spacing=SPACING, name="Dataset001_Turned")
    write_nifti(reference(folder), painted(), SPACING)
    return folder


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(place, "show_warning", texts.append)
    return texts


def reference(raw):
    return raw / "labelsTr" / "c0.nii.gz"


def image_of(raw):
    return read_volume([raw / "imagesTr" / "c0_0000.nii.gz"])


@pytest.mark.parametrize("turn", [mirror, permute])
def test_the_layers_of_a_case_lie_over_each_other(raw, said, turn):
    turn(reference(raw))
    image, labels = case_layers(raw, "c0")
    np.testing.assert_array_equal(labels[0], painted())
    assert labels[1]["scale"] == image[1]["scale"]
    (text,) = said
    assert "c0.nii.gz: the labels are stored in another orientation than the image (" in text
    assert "here they are reoriented onto it, and saved so" in text
    said.clear()
    write_nifti(reference(raw), painted(), SPACING)
    case_layers(raw, "c0")
    assert not said


def test_sparse_labels_in_another_order_are_shown_as_painted(raw, said):
    write_nifti(reference(raw), painted(background=2), SPACING)
    (raw / "dataset.json").write_text((raw / "dataset.json").read_text().replace('"a": 1', '"a": 1, "ignore": 2'))
    mirror(reference(raw))
    labels = _painted(case_layers(raw, "c0")[-1])
    np.testing.assert_array_equal(labels[0], painted())


def test_labels_elsewhere_are_shown_where_they_lie(raw, said):
    shift(reference(raw))
    image, labels = case_layers(raw, "c0")
    assert labels[1]["translate"][2] - image[1].get("translate", (0, 0, 0))[2] == 30
    assert "the labels lie in another place than the image (places 30 mm apart)" in said[0]
    with pytest.raises(ImageError, match="the labels lie in another place than the image"):
        drain(score_layers(raw, "c0", raw / "labelsTr" / "c0.nii.gz"))


def test_a_result_is_compared_with_labels_where_they_lie(raw, said, tmp_path):
    seen = painted()
    seen[3, 20, 10] = 1
    write_nifti(tmp_path / "c0.nii.gz", seen, SPACING)
    for turned in ((reference(raw),), (tmp_path / "c0.nii.gz",)):
        for path in turned:
            mirror(path)
        *_, labels, result, wrong = drain(score_layers(raw, "c0", tmp_path / "c0.nii.gz"))
        np.testing.assert_array_equal(labels[0], painted())
        np.testing.assert_array_equal(result[0], seen)
        assert np.argwhere(wrong[0]).tolist() == [[3, 20, 10]]


def test_changes_to_a_case_in_another_order_are_saved_where_they_are_seen(viewer, cases, raw, said, qtbot):
    permute(reference(raw))
    show(cases, raw)
    cases.open_case("c0")
    qtbot.waitUntil(lambda: cases.form.labels is not None)
    labels = cases.form.labels
    np.testing.assert_array_equal(labels.data, painted())
    labels.data[3, 20, 10] = 1
    labels.refresh()
    assert "Will save changes to" in settled(cases, qtbot)
    press(cases, qtbot)
    stored, geometry = read_labels(reference(raw))
    expected = painted()
    expected[3, 20, 10] = 1
    np.testing.assert_array_equal(stored, expected)
    assert isinstance(relation(Grid(SHAPE, image_of(raw).geometry), Grid(SHAPE, geometry)), Same)


def test_labels_elsewhere_are_not_saved_as_if_they_lay_on_the_image(viewer, cases, raw, said, qtbot):
    shift(reference(raw))
    show(cases, raw)
    cases.open_case("c0")
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    cases.form.choose([viewer.layers[0]], viewer.layers[1])
    refused(cases, qtbot, "show different places")


def test_a_dropped_dataset_is_shown_on_its_image(viewer, cases, raw, said, qtbot):
    mirror(reference(raw))
    layers = reader.get_reader(str(raw))(str(raw))
    np.testing.assert_array_equal(layers[-1][0], painted())
