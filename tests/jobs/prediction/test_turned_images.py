"""A model whose reader turns images to RAS gets every image turned so, wherever it comes from, and none unturned."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

pytest.importorskip("pydicom", reason="pydicom is not installed: it comes with napari-nnunet[dicom]")

from dicom_files import write_series
from helpers import Recipe, make_model, smooth_image
from napari_nnunet.engine.image.turning import Turning
from napari_nnunet.errors import ImageError
from napari_nnunet.events import Painted, Pump, drain
from napari_nnunet.formats.dicom.series import read_series
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.jobs.large.files import predict_image_files
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.large import PredictImageRequest
from napari_nnunet.schema.requests.prediction import PredictFolderRequest, PredictSettings
from napari_nnunet.volume import Volume

SHAPE = (9, 14, 18)
HOW = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False}
TURNING = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
# z, y, x of the array lead to the left, the head and the back; read by ITK, in LPS
ODD = Geometry(spacing=(2.0, 1.0, 0.5), origin=(4.0, 5.0, 6.0), direction=(0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0))


class Lazy:
    """An array that is read when it is asked for."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, key):
        return self._array[key]


def segmented(model, *sources, out):
    asked = PredictFolderRequest.of(source=sources, target=out, **HOW)
    assert not drain(predict_folder(model, asked)).failed
    return out


def models(tmp_path, reader):
    """Return a model that turns, and one with the same weights that does not."""
    return (make_model(tmp_path / name, Recipe(reader=name)) for name in (reader, "SimpleITKIO"))


@pytest.mark.parametrize("reader", TURNING)
def test_dicom_and_other_formats_are_segmented_as_the_same_image_in_nifti(tmp_path, reader):
    model, plain = models(tmp_path, reader)
    array = (smooth_image(SHAPE)[0] * 3).astype(np.int16)
    series = write_series(tmp_path / "in" / "dicom", array, spacing=(1.0, 1.0, 1.0))
    image = sitk.GetImageFromArray(array)
    _, geometry = read_series(series)
    image.SetOrigin(geometry.origin)
    for name in ("nifti.nii.gz", "nrrd.nrrd"):
        sitk.WriteImage(image, str(tmp_path / "in" / name))
    files = (series, tmp_path / "in" / "nifti.nii.gz", tmp_path / "in" / "nrrd.nrrd")
    out = segmented(model, *files, out=tmp_path / "out")
    found = {name: read_labels(out / f"{name}.nii.gz", reader="SimpleITKIO") for name in ("dicom", "nifti", "nrrd")}
    labels, grid = found["nifti"]
    assert labels.any()
    for other, own in found.values():
        np.testing.assert_array_equal(other, labels)
        assert own.axes_code == grid.axes_code == "LPS"
    unturned, _ = read_labels(segmented(plain, series, out=tmp_path / "plain") / "dicom.nii.gz")
    assert (unturned != labels).any()


@pytest.mark.parametrize("region", [None, ((1, 8), (2, 11), (3, 17))])
@pytest.mark.parametrize("lazy", [False, True])
def test_an_image_in_memory_is_turned_and_its_result_turned_back(tmp_path, region, lazy):
    model, plain = models(tmp_path, TURNING[0])
    array = smooth_image(SHAPE)
    turning = Turning.of(SHAPE, ODD)
    size = tuple(ODD.spacing[axis] for axis in turning.found.axes)
    settings = PredictSettings(probabilities=True, **HOW)
    straight = Volume(np.ascontiguousarray(turning.stack(array)), Geometry(spacing=size))
    box = None if region is None else turning.box(region)
    expected = drain(predict(plain, straight, settings, roi=box))
    canvas = np.zeros(SHAPE, np.uint8)
    painted = np.zeros(SHAPE, bool)
    volume = Volume(Lazy(array) if lazy else array, ODD)
    with Pump(predict(model, volume, settings, canvas=canvas, roi=region, focus=(1, None, 3), preview=True)) as pump:
        for event in pump:
            if isinstance(event, Painted) and event.final:
                painted[tuple(slice(lo, hi) for lo, hi in event.box)] = True
    found = pump.result
    assert canvas.any()
    assert not canvas[~painted].any()
    np.testing.assert_array_equal(turning.found.turn(canvas), expected.labels)
    np.testing.assert_array_equal(found.labels, canvas)
    np.testing.assert_allclose(turning.stack(found.probabilities), expected.probabilities, atol=1e-6)
    assert found.geometry == ODD
    assert found.properties["sitk_stuff"]["origin"] == ODD.origin


@given(st.permutations(range(3)), st.tuples(*[st.sampled_from((-1, 1))] * 3), st.tuples(*[st.floats(-0.3, 0.3)] * 3),
       st.tuples(*[st.floats(0.2, 9)] * 3))  # fmt: skip
def test_images_are_turned_as_nibabel_turns_files(axes, signs, tilt, size):
    rotation = Rotation.from_rotvec(tilt).as_matrix() @ np.eye(3)[axes] * signs
    affine = np.eye(4)
    affine[:3, :3] = rotation * size
    array = np.arange(24).reshape(2, 3, 4)
    stored = nibabel.Nifti1Image(array.transpose().astype(np.int16), affine)
    expected = np.asarray(nibabel.as_closest_canonical(stored).dataobj).transpose()
    lps = np.diag([-1, -1, 1]) @ rotation
    geometry = Geometry(spacing=size[::-1], origin=(0.0, 0.0, 0.0), direction=tuple(map(float, lps.ravel())))
    turning = Turning.of(array.shape, geometry)
    np.testing.assert_array_equal(array if turning is None else turning.found.turn(array), expected)


@pytest.mark.parametrize("place", [{}, {"origin": (0.0,) * 3, "direction": (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)}])
def test_what_has_no_place_or_lies_in_ras_is_left_as_it_is(place):
    assert Turning.of(SHAPE, Geometry(spacing=(1.0, 1.0, 1.0), **place)) is None


def test_an_image_that_is_read_box_by_box_is_refused_where_it_would_have_to_be_turned(tmp_path):
    model = make_model(tmp_path, Recipe(reader=TURNING[0]))
    image = sitk.GetImageFromArray(smooth_image(SHAPE)[0])
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    asked = PredictImageRequest.of(
        model=model.folder, source=(str(tmp_path / "a.nrrd"),), target=tmp_path / "out.nii.gz", device="cpu"
    )
    with pytest.raises(
        ImageError, match=r"was trained on images reoriented to RAS, but the axes of a\.nrrd lead to LPS"
    ):
        drain(predict_image_files(model, asked))
