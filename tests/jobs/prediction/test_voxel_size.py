"""Voxels far from those a model was trained on are asked about; models without a voxel size count voxels."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import tifffile

from helpers import smooth_image, write_nifti
from napari_nnunet.engine.image.voxel_size import as_trained
from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.events import CaseFailed, Note, drain
from napari_nnunet.formats.images.files import read_volume, write_labels
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.jobs.prediction.voxel_size import far_voxels
from napari_nnunet.schema.geometry import BESIDE, GIVEN, IMAGEJ, RESOLUTION, Geometry
from napari_nnunet.schema.requests.prediction import PredictFolderRequest, PredictSettings
from napari_nnunet.volume import Volume

STACK = {"photometric": "minisblack", "metadata": None}
CPU = PredictSettings(device="cpu", precision="float32", mirroring=False)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (9, 0.9, 0.11), (0.2, 5, 10)])
def test_voxels_within_a_factor_of_ten_pass(model, spacing):
    assert far_voxels(model, Geometry(spacing=spacing)) is None


@pytest.mark.parametrize(
    ("spacing", "axes"), [((1000, 1, 1), "z"), ((0.0005, 0.00025, 0.00025), "zyx"), ((1, 11, 1), "y")]
)
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_voxels_in_another_unit_are_told_with_both_sizes(new_model, spacing, axes, transpose):
    found = far_voxels(new_model(transpose=transpose), Geometry(spacing=spacing))
    assert found is not None
    assert found.axes == axes
    assert " x ".join(f"{v:g}" for v in spacing) in found.text
    assert "1 x 1 x 1 mm" in found.text


def test_a_slice_wise_model_takes_any_distance_of_slices(new_model):
    model = new_model(patch=(16, 16), spacing=(1.0, 1.0), configuration="2d")
    assert far_voxels(model, Geometry(spacing=(70, 1, 1))) is None
    assert far_voxels(model, Geometry(spacing=(1, 70, 70))).axes == "yx"
    assert far_voxels(model, Geometry(spacing=(0.01, 0.01))).axes == "yx"


def test_an_assumed_millimetre_is_named_as_such(new_model):
    model = new_model(spacing=(0.0005, 0.00025, 0.00025))
    found = far_voxels(model, Geometry(spacing=(1, 1, 1), spacing_known=False))
    assert "does not say its voxel size, so 1 mm was assumed" in found.text


def test_predicting_refuses_far_voxels_until_they_are_accepted(model):
    volume = Volume(smooth_image((8, 12, 12)), Geometry(spacing=(1, 1, 20)))
    with pytest.raises(SettingsError, match=r"1 x 1 x 20 mm.*--spacing.*--any_spacing"):
        drain(predict(model, volume, CPU))
    assert drain(predict(model, volume, CPU.replace(any_spacing=True))).labels.shape == (8, 12, 12)


def test_a_size_that_cannot_fit_is_refused_before_anything_is_made(new_model):
    model = new_model(spacing=(0.0005, 0.0005, 0.0005))
    volume = Volume(smooth_image((12, 20, 24)), Geometry(spacing=(1, 1, 1)))
    with pytest.raises(ResourceError, match=r"12 x 20 x 24 voxels of 1 x 1 x 1 mm.*24000 x 40000 x 48000 voxels"):
        drain(predict(model, volume, CPU.replace(any_spacing=True)))


def test_one_case_in_another_unit_does_not_end_the_folder(model, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for name, spacing in (("a", (1, 1, 1)), ("b", (1000.0, 1, 1)), ("c", (1, 1, 1))):
        write_nifti(source / f"{name}_0000.nii.gz", smooth_image((8, 12, 12))[0], spacing)
    events = []
    request = PredictFolderRequest(source=source, target=tmp_path / "out", **CPU.model_dump(exclude_unset=True))
    result = drain(predict_folder(model, request), events.append)
    assert result.done == ("a", "c")
    assert "1000 x 1 x 1 mm" in result.failed["b"].message
    assert [event.case for event in events if isinstance(event, CaseFailed)] == ["b"]


def test_a_given_spacing_wins_over_the_file_and_is_written(model, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write_nifti(source / "a_0000.nii.gz", smooth_image((8, 12, 12))[0], (1000.0, 1, 1))
    request = PredictFolderRequest(
        source=source, target=out, spacing=(2, 0.5, 0.5), **CPU.model_dump(exclude_unset=True)
    )
    assert drain(predict_folder(model, request)).done == ("a",)
    assert read_volume([out / "a.nii.gz"]).geometry.spacing == pytest.approx((2, 0.5, 0.5))


@pytest.mark.parametrize("sizes", [(2.0, 0.5), (1.0, 1.0, 0.0)])
def test_spacings_that_fit_no_axis_are_refused(model, tmp_path, sizes):
    source = tmp_path / "in"
    source.mkdir()
    write_nifti(source / "a_0000.nii.gz", smooth_image((8, 12, 12))[0])
    request = PredictFolderRequest(
        source=source, target=tmp_path / "out", spacing=sizes, **CPU.model_dump(exclude_unset=True)
    )
    assert "voxel size" in drain(predict_folder(model, request)).failed["a"].message


def test_a_changed_size_keeps_place_and_directions():
    affine = ((0.0, -2.0, 0.0, 5.0), (1.0, 0.0, 0.0, 6.0), (0.0, 0.0, 3.0, 7.0), (0.0, 0.0, 0.0, 1.0))
    found = Geometry(spacing=(3, 2, 1), affine=affine).with_spacing((6, 2, 0.5), GIVEN)
    np.testing.assert_allclose(found.affine, [[0, -2, 0, 5], [0.5, 0, 0, 6], [0, 0, 6, 7], [0, 0, 0, 1]])
    assert found.spacing == (6, 2, 0.5)
    assert found.spacing_source == GIVEN


def test_models_that_never_knew_a_voxel_size_count_voxels(new_model):
    pictures = new_model(
        patch=(16, 16), spacing=(1.0, 1.0), configuration="2d", reader="NaturalImage2DIO", file_ending=".png"
    )
    stacks = new_model(reader="Tiff3DIO", file_ending=".tif", name="Dataset002_Stacks")
    microns = new_model(
        reader="Tiff3DIO", file_ending=".tif", spacing=(0.0005, 0.00025, 0.00025), name="Dataset003_Microns"
    )
    inside = Geometry(spacing=(0.0005, 0.00025, 0.00025), spacing_source=IMAGEJ)
    beside = inside.model_copy(update={"spacing_source": BESIDE})
    picture = Geometry(spacing=(0.00025, 0.00025), spacing_source=RESOLUTION)
    assert seen_by(pictures, picture) == (1, 1)
    assert seen_by(pictures, picture.with_spacing((2, 2), GIVEN)) == (2, 2)
    assert seen_by(stacks, inside) == (1, 1, 1)
    assert seen_by(stacks, beside) == beside.spacing
    assert seen_by(microns, inside) == inside.spacing


def seen_by(model, geometry):
    return as_trained(model.plans, model.configuration, geometry).spacing


@pytest.mark.parametrize("given", [None, (1.0, 1.0, 1.0)])
def test_sizes_beside_images_that_cannot_be_read_are_said_once_and_not_needed_where_one_is_given(
    model, tmp_path, given
):
    source = tmp_path / "in"
    source.mkdir()
    for name, text in (("a", '{"spacing": [1, 1'), ("b", '{"spacing": [1, 0, 1]}'), ("c", '{"spacing": [1, 1, 1]}')):
        tifffile.imwrite(source / f"{name}_0000.tif", smooth_image((8, 12, 12))[0].astype(np.uint8), **STACK)
        (source / f"{name}.json").write_text(text)
    events = []
    request = PredictFolderRequest(source=source, target=tmp_path / "out", **CPU.model_dump(exclude_unset=True))
    result = drain(predict_folder(model, request.replace(spacing=given)), events.append)
    warned = [event.text for event in events if isinstance(event, Note) and event.level == "warning"]
    if given is None:
        assert len(result.failed) == 2
        (said,) = [text for text in warned if "can be read for" in text]
        assert said.startswith("No voxel size can be read for 2 of 3 cases (a.json, b.json): ")
        assert "a.json is not valid JSON" in said
        assert said.endswith("They will fail; fix the files, or give the size (--spacing).")
    else:
        assert not result.failed
        assert not [text for text in warned if ".json" in text]
        assert read_volume([tmp_path / "out" / "a.nii.gz"]).geometry.spacing == given


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SLA"])
def test_a_voxel_size_that_was_given_is_that_of_the_result_also_where_the_reader_turns_images(tmp_path, axes):
    start = nibabel.orientations.axcodes2ornt("RAS")
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(axes))
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), np.eye(4)).as_reoriented(turn)
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = read_volume([tmp_path / "a.nii.gz"], reader="NibabelIOWithReorient")
    given = volume.geometry.with_spacing((4.0, 3.0, 2.0), "given")
    labels = volume.array[0].astype(np.uint8)
    write_labels(labels, given, tmp_path / "b.nii.gz", writer="NibabelIOWithReorient")
    written = nibabel.as_closest_canonical(nibabel.load(tmp_path / "b.nii.gz"))
    assert written.header.get_zooms() == (2.0, 3.0, 4.0)
    np.testing.assert_allclose(written.affine, given.reoriented_affine)
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, labels)
    np.testing.assert_allclose(nibabel.load(tmp_path / "b.nii.gz").affine[:, 3], image.affine[:, 3])
