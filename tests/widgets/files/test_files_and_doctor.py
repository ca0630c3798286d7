"""Reader, writer, samples, menus and the doctor's dock."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk


def _itk(array, path, *, rotate=0.3):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((10.0, -20.0, 30.0))
    c, s = np.cos(rotate), np.sin(rotate)
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path))
    return image


def test_a_medical_image_lies_where_itk_says(viewer, tmp_path):
    image = _itk(np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32), tmp_path / "a.nii.gz")
    (layer,) = viewer.open(str(tmp_path / "a.nii.gz"), plugin="napari-nnunet")
    for z, y, x in ((0, 0, 0), (3, 2, 5), (1, 4, 0)):
        expected = image.TransformIndexToPhysicalPoint((x, y, z))[::-1]
        np.testing.assert_allclose(layer.data_to_world((z, y, x)), expected, atol=1e-4)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3


def test_labels_beside_a_dataset_json_get_their_names_and_go_back_to_their_grid(viewer, tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, size=(4, 5, 6)).astype(np.uint8)
    source = _itk(labels, tmp_path / "case.nii.gz")
    dataset = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1, "lesion": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    (layer,) = viewer.open(str(tmp_path / "case.nii.gz"), plugin="napari-nnunet")
    assert layer._type_string == "labels"
    assert list(layer.features["name"]) == ["background", "organ", "lesion"]
    layer.save(str(tmp_path / "saved.nii.gz"), plugin="napari-nnunet")
    saved = sitk.ReadImage(str(tmp_path / "saved.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(saved), labels)
    np.testing.assert_allclose(saved.GetDirection(), source.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(saved.GetOrigin(), source.GetOrigin(), atol=1e-4)


def test_a_painted_layer_is_saved_where_it_lies(viewer, tmp_path):
    source = _itk(np.zeros((4, 5, 6), np.float32), tmp_path / "a.nii.gz")
    (image,) = viewer.open(str(tmp_path / "a.nii.gz"), plugin="napari-nnunet")
    painted = viewer.add_labels(
        np.ones((4, 5, 6), np.uint8), scale=image.scale, translate=image.translate, affine=image.affine,
        units=image.units,
    )  # fmt: skip
    painted.save(str(tmp_path / "p.nrrd"), plugin="napari-nnunet")
    saved = sitk.ReadImage(str(tmp_path / "p.nrrd"))
    np.testing.assert_allclose(saved.GetDirection(), source.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(saved.GetOrigin(), source.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(saved.GetSpacing(), source.GetSpacing(), rtol=1e-5)


def test_a_dropped_model_folder_is_remembered(viewer, model):
    from napari_nnunet.formats.model.known_models import known_models
    from napari_nnunet.formats.workspace import Workspace

    assert viewer.open(str(model.folder), plugin="napari-nnunet") == []
    assert known_models(Workspace.resolve()) == [model.folder]


@pytest.mark.parametrize(
    ("key", "count"), [("nuclei_and_shells", 2), ("touching_nuclei", 2), ("cell_picture", 1), ("coins", 1)]
)
def test_samples_open(viewer, key, count):
    assert len(viewer.open_sample("napari-nnunet", key)) == count


def test_segment_stands_in_the_layers_menu(viewer):
    from app_model.types import MenuItem
    from napari._app_model import get_app_model

    menus = get_app_model().menus
    items = [item.command.id for item in menus.get_menu("nnunet_segment") if isinstance(item, MenuItem)]
    assert "napari-nnunet.segment" in items
    assert any(getattr(item, "submenu", None) == "nnunet_segment" for item in menus.get_menu("napari/layers/segment"))


def test_the_doctor_dock_shows_the_report(viewer, qtbot):
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Check my computer")
    qtbot.waitUntil(lambda: "3-D prediction" in dock.text.toPlainText())
    dock.copy.click()
    from qtpy.QtWidgets import QApplication

    assert "Processor" in QApplication.clipboard().text()
