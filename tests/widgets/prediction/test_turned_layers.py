"""Layers are turned for models that know turned images only, and their results lie on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from napari.layers import Image

from helpers import Recipe, make_model, smooth_image
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.schema.requests.prediction import PredictFolderRequest, PredictSettings
from napari_nnunet.widgets.files.reader import get_reader
from napari_nnunet.widgets.prediction.request import Choices, resolve

SHAPE = (10, 12, 14)
HOW = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False}
DIRECTION = (0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0)  # axes permuted, two of them mirrored


def request_of(model, layer, axes="ZYX", spacing=""):
    return resolve(Choices(model, (layer,), axes, spacing, PredictSettings(**HOW), None, None, "Labels"))


@pytest.fixture
def turning(tmp_path):
    return make_model(tmp_path / "turning", Recipe(reader="NibabelIOWithReorient"))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
@pytest.mark.parametrize("typed", ["", "1 1 1"])
def test_a_file_that_was_dropped_is_segmented_as_in_a_folder(tmp_path, turning, ending, typed):
    image = sitk.GetImageFromArray(smooth_image(SHAPE)[0])
    image.SetDirection(DIRECTION)
    image.SetOrigin((3.0, -4.0, 5.0))
    path = tmp_path / f"a_0000{ending}"
    sitk.WriteImage(image, str(path))
    asked = PredictFolderRequest.of(source=path, target=tmp_path / "out", **HOW)
    assert drain(predict_folder(turning, asked)).done == ("a",)
    expected, _ = read_labels(tmp_path / "out" / "a.nii.gz", reader="SimpleITKIO")
    data, keywords, _ = get_reader(str(path))(str(path))[0]
    request = request_of(turning, Image(data, **keywords), spacing=typed)
    found = drain(predict(request.model, request.frames[0].volume, request.settings))
    assert expected.any()
    np.testing.assert_array_equal(found.labels, expected)
    plain = make_model(tmp_path / "plain", Recipe())
    choices = Choices(plain, (Image(data, **keywords),), "ZYX", typed, PredictSettings(**HOW), None, None, "Labels")
    together = resolve(replace(choices, turns=True))  # with a model beside it that turns images
    found = drain(predict(turning, together.frames[0].volume, request.settings))
    np.testing.assert_array_equal(found.labels, expected)
    as_it_lies = request_of(plain, Image(data, **keywords), spacing=typed)
    assert as_it_lies.grid.origin is None
    other = drain(predict(plain, as_it_lies.frames[0].volume, request.settings))
    assert (other.labels != expected).any()


def test_a_layer_that_says_nothing_of_its_place_is_taken_as_it_lies(turning):
    array = smooth_image(SHAPE)[0]
    request = request_of(turning, Image(array, scale=(1, 1, 1), units=["mm"] * 3))
    assert request.grid.origin is None
    assert request.grid.affine is None
