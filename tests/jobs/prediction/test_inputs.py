"""Folders, files and series as people have them: everything is segmented, or named as left out."""

from __future__ import annotations

import json

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

from dicom_files import write_series
from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet.cli.main import main
from napari_nnunet.errors import DatasetError, ResourceError, SettingsError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.jobs.prediction.folder import case as segmenting
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.schema.requests.prediction import PredictFolderRequest

CPU = {"device": "cpu", "precision": "float32", "mirroring": False}


def segment(model, source, target, **changes):
    warnings = []
    request = PredictFolderRequest.of(source=source, target=target, **CPU, **changes)
    result = drain(
        predict_folder(model, request),
        lambda event: warnings.append(event.text) if isinstance(event, Note) and event.level == "warning" else None,
    )
    return result, warnings


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    for i, name in enumerate(("a_0000.nii.gz", "plain_0000.nii", "more/below.nii.gz")):
        write_nifti(folder / name, smooth_image((8, 12, 12), seed=i)[0])
    (folder / "UPPER_0000.NII.GZ").write_bytes((folder / "a_0000.nii.gz").read_bytes())
    return folder


def test_subfolders_are_named_as_left_out_or_mirrored_in_the_results(model, images, tmp_path):
    result, warnings = segment(model, images, tmp_path / "out")
    assert result.done == ("UPPER", "a", "plain")
    assert warnings == ["1 entry of the input is left out: more/ (a subfolder)."]
    result, warnings = segment(model, images, images / "out", subfolders=True, probabilities=True)
    assert result.done == ("UPPER", "a", "more/below", "plain")
    assert warnings == []
    assert (images / "out" / "more" / "below.nii.gz").is_file()
    assert (images / "out" / "more" / "below.npz").is_file()
    np.testing.assert_array_equal(
        read_labels(images / "out" / "a.nii.gz")[0], read_labels(images / "out" / "UPPER.nii.gz")[0]
    )


def test_what_an_earlier_run_wrote_beside_a_segmentation_goes_with_it(model, images, tmp_path):
    out = tmp_path / "out"
    segment(model, images, out, probabilities=True)
    (out / "a.dcm").write_bytes(b"an image, no segmentation")
    (out / "entropy").mkdir()
    (out / "entropy" / "a.nii.gz").write_bytes(b"of an earlier run")
    (out / "other.npz").write_bytes(b"of nobody")
    segment(model, images, out)
    assert sorted(path.name for path in out.glob("a.*")) == ["a.dcm", "a.nii.gz"]
    assert not (out / "entropy" / "a.nii.gz").exists()
    assert (out / "other.npz").exists()
    segment(model, images, out, probabilities=True)
    assert (out / "a.npz").is_file()


def test_probabilities_of_a_run_that_was_killed_do_not_stay_beside_the_next_one(model, images, tmp_path):
    out = tmp_path / "out"
    segment(model, images, out, probabilities=True)
    for name in ("a", "plain"):
        (out / f"{name}.nii.gz").unlink()
    np.savez(out / "plain.npz", mine=np.zeros(3))
    segment(model, images, out)
    assert sorted(path.name for path in out.glob("a.*")) == ["a.nii.gz"]
    assert "mine" in np.load(out / "plain.npz")  # nobody's probabilities, and it lay beside no segmentation


@pytest.mark.parametrize("before", [False, True])
def test_where_a_segmentation_cannot_be_written_nothing_is_left_beside_it(model, images, tmp_path, monkeypatch, before):
    out = tmp_path / "out"
    if before:
        segment(model, images, out)
    write = segmenting.write_result

    def full(result, info, path, writer):
        if path.name == "a.nii.gz":
            assert (out / "a.npz").is_file()
            raise ResourceError("No space left.")
        return write(result, info, path, writer)

    monkeypatch.setattr(segmenting, "write_result", full)
    result, _ = segment(model, images, out, probabilities=True)
    assert list(result.failed) == ["a"]
    assert sorted(path.name for path in out.glob("a.*")) == (["a.nii.gz"] if before else [])
    assert (out / "plain.npz").is_file()


def test_a_run_that_is_cancelled_while_a_remark_is_made_keeps_what_is_whole(model, images, tmp_path, monkeypatch):
    out, write = tmp_path / "out", segmenting.write_result
    monkeypatch.setattr(segmenting, "write_result", lambda *given: write(*given) or "There may be doubt.")
    request = PredictFolderRequest.of(source=images, target=out, probabilities=True, **CPU)
    job = predict_folder(model, request)
    next(event for event in job if isinstance(event, Note) and "There may be doubt" in event.text)
    job.close()
    assert sorted(path.suffix for path in out.glob("UPPER.*")) == [".gz", ".npz", ".pkl"]


def test_a_single_file_and_nothing_at_all(model, images, tmp_path, capsys):
    result, _ = segment(model, (images / "a_0000.nii.gz", images / "more" / "below.nii.gz"), tmp_path / "out")
    assert result.done == ("a", "below")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"has no files ending in \.nii\.gz"):
        segment(model, tmp_path / "empty", tmp_path / "out")
    words = ["-i", str(tmp_path / "empty"), "-o", str(tmp_path / "out"), "-m", str(model.folder)]
    assert main(["predict_from_modelfolder", *words]) == 1


def test_stacks_say_what_is_taken_where_they_say_no_size(new_model, tmp_path):
    model = new_model(reader="Tiff3DIO", file_ending=".tif")
    folder = tmp_path / "in"
    folder.mkdir()
    stack = smooth_image((8, 12, 12))[0].clip(0, 255).astype(np.uint8)
    tifffile.imwrite(folder / "plain_0000.tif", stack)
    words = {"spacing": 0.5, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(folder / "imagej_0000.tif", stack, imagej=True, resolution=(4, 4), metadata=words)
    result, warnings = segment(model, folder, tmp_path / "out")
    assert result.done == ("imagej", "plain")
    assert "No voxel size in plain_0000.tif; 1 mm is assumed" in warnings[0]
    assert "The voxel size inside imagej_0000.tif is kept in the results only" in warnings[1]
    assert len(warnings) == 2
    labels = [tifffile.imread(tmp_path / "out" / f"{name}.tif") for name in ("plain", "imagej")]
    np.testing.assert_array_equal(*labels)
    sizes = [
        json.loads((tmp_path / "out" / f"{name}.json").read_text(encoding="utf-8"))["spacing"]
        for name in ("plain", "imagej")
    ]
    assert sizes == [[1, 1, 1], pytest.approx([0.0005, 0.00025, 0.00025])]


def test_a_model_of_stacks_in_micrometres_takes_sizes_from_inside(new_model, tmp_path):
    model = new_model(reader="Tiff3DIO", file_ending=".tif", spacing=(0.0005, 0.00025, 0.00025))
    folder = tmp_path / "in"
    folder.mkdir()
    stack = smooth_image((8, 12, 12))[0].clip(0, 255).astype(np.uint8)
    words = {"spacing": 0.5, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(folder / "imagej.tif", stack, imagej=True, resolution=(4, 4), metadata=words)
    tifffile.imwrite(folder / "plain.tif", stack)
    result, _ = segment(model, folder, tmp_path / "out")
    assert result.done == ("imagej",)
    assert "does not say its voxel size, so 1 mm was assumed" in result.failed["plain"].message


def test_volumes_are_refused_by_a_model_of_pictures_before_anything_is_computed(tmp_path, monkeypatch):
    pictures = {"configuration": "2d", "patch": (16, 16), "spacing": (1.0, 1.0), "reader": "NaturalImage2DIO"}
    model = make_model(tmp_path / "results", Recipe(**pictures, file_ending=".png"))
    series = write_series(tmp_path / "scan", smooth_image((4, 16, 16))[0].astype(np.int16))
    write_nifti(tmp_path / "v_0000.nii.gz", smooth_image((4, 16, 16))[0])
    iio.imwrite(tmp_path / "good_0000.png", smooth_image((16, 16))[0].astype(np.uint8))
    computed, real = [], segmenting.predict

    def watched(model, volume, *settings, **more):
        computed.append(len(volume.shape))
        return real(model, volume, *settings, **more)

    monkeypatch.setattr(segmenting, "predict", watched)
    files = (series, tmp_path / "v_0000.nii.gz", tmp_path / "good_0000.png")
    result, _ = segment(model, files, tmp_path / "out")
    assert result.done == ("good",)
    said = {name: error.message for name, error in result.failed.items()}
    assert "scan (scan) is a DICOM series, which is read as a volume of 4 x 16 x 16 voxels" in said["scan"]
    assert "v (v_0000.nii.gz) is a volume of 4 x 16 x 16 voxels, but" in said["v"]
    assert all("segments pictures (.png)" in text for text in said.values())
    assert computed == [2]


def test_a_finished_segmentation_of_an_image_of_another_size_is_not_kept(model, images, tmp_path):
    out = tmp_path / "out"
    assert segment(model, images / "a_0000.nii.gz", out)[0].done == ("a",)
    assert segment(model, images / "a_0000.nii.gz", out, keep_finished=True)[0].skipped == ("a",)
    write_nifti(images / "a_0000.nii.gz", smooth_image((8, 10, 12))[0])
    assert segment(model, images / "a_0000.nii.gz", out, keep_finished=True)[0].done == ("a",)
    assert read_labels(out / "a.nii.gz")[0].shape == (8, 10, 12)
    write_nifti(images / "a_0000.nii.gz", smooth_image((8, 12, 10))[0])  # the same voxels, turned
    assert segment(model, images / "a_0000.nii.gz", out, keep_finished=True)[0].done == ("a",)
    assert read_labels(out / "a.nii.gz")[0].shape == (8, 12, 10)


def test_no_segmentation_takes_the_place_of_an_image(model, images, tmp_path):
    image = images / "more" / "below.nii.gz"
    (tmp_path / "link").symlink_to(images / "more")
    before = image.read_bytes()
    for source, target in ((image, images / "more"), (image, tmp_path / "link"), (images / "more", tmp_path / "link")):
        with pytest.raises(SettingsError, match=r"would overwrite the image|are the same folder"):
            segment(model, source, target)
    assert image.read_bytes() == before


def test_segmentations_are_not_written_into_the_folder_of_a_model(model, images):
    """They come with plans.json and dataset.json, which replaced those of another model."""
    with pytest.raises(SettingsError, match="is the folder of a model, whose plans.json and dataset.json would be"):
        segment(model, images, model.folder)
