"""A result that is kept belongs to the image and to the model that are there; else it is made anew, or said."""

from __future__ import annotations

import os
import shutil

import pytest
import SimpleITK as sitk
import tifffile

from dicom_files import write_series
from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet.cli.main import main
from napari_nnunet.events import CaseDone, CaseFailed, Note, drain
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.results.made_of import Files, files_behind, read_records
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.schema.requests.prediction import PredictFolderRequest

CPU = {"device": "cpu", "precision": "float32", "mirroring": False, "backend": "torch"}


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "models", Recipe(folds=(0, 1)))


@pytest.fixture
def images(tmp_path):
    (tmp_path / "in").mkdir()
    for i, name in enumerate("ab"):
        write_nifti(tmp_path / "in" / f"{name}_0000.nii.gz", smooth_image((8, 12, 12), seed=i)[0])
    return tmp_path / "in"


def segment(model, source, **changes):
    said = []
    request = {"source": source, "target": source.parent / "out", "keep_finished": True, **CPU, **changes}
    result = drain(predict_folder(model, PredictFolderRequest.of(**request)), said.append)
    return result, [event.text for event in said if isinstance(event, Note) and "segmentation" in event.text]


def exchange(images):
    """Give two images each other's name, as they are."""
    one, other, spare = images / "a_0000.nii.gz", images / "b_0000.nii.gz", images / "spare"
    for source, target in ((one, spare), (other, one), (spare, other)):
        source.rename(target)


def test_the_result_of_an_image_that_another_one_replaced_is_made_anew(model, images, tmp_path):
    before = segment(model, images)
    assert before[0].done == ("a", "b") and not before[1]
    a, b = (read_labels(tmp_path / "out" / f"{name}.nii.gz")[0] for name in "ab")
    assert (a != b).any()
    assert segment(model, images)[0].skipped == ("a", "b")
    exchange(images)
    for path in images.iterdir():  # not even size and time tell them apart
        os.utime(path, ns=(1, 1))
    result, (text,) = segment(model, images)
    assert result.done == ("a", "b")
    assert text == (
        f"2 cases are segmented again, as the segmentation in {tmp_path / 'out'} was made from another image: a, b."
    )
    assert (read_labels(tmp_path / "out" / "a.nii.gz")[0] == b).all()
    assert segment(model, images) == (type(result)((), ("a", "b"), {}), [])


def test_images_and_results_that_were_copied_or_touched_are_known_again(model, images, tmp_path):
    segment(model, images)
    shutil.copytree(tmp_path / "in", tmp_path / "new" / "in", copy_function=shutil.copyfile)
    shutil.copytree(tmp_path / "out", tmp_path / "new" / "out", copy_function=shutil.copyfile)
    result, said = segment(model, tmp_path / "new" / "in")
    assert result.skipped == ("a", "b") and not said
    lines = (tmp_path / "new" / "out" / "made_of.jsonl").read_text().count("\n")
    assert lines == 4  # what they look like here is noted, and not again
    assert segment(model, tmp_path / "new" / "in")[0].skipped == ("a", "b")
    assert (tmp_path / "new" / "out" / "made_of.jsonl").read_text().count("\n") == lines


def test_results_that_nothing_is_known_of_are_kept_and_those_older_than_their_image_named(model, images, tmp_path):
    segment(model, images)
    (tmp_path / "out" / "made_of.jsonl").write_text('{"case": "a", "by": 3}\n[]\nno line\n')
    assert segment(model, images) == (segment(model, images)[0], [])
    write_nifti(images / "b_0000.nii.gz", smooth_image((8, 12, 12), seed=7)[0])
    os.utime(images / "b_0000.nii.gz", ns=(1 << 62, 1 << 62))
    result, (text,) = segment(model, images)
    assert result.skipped == ("a", "b")
    assert text.startswith(
        f"1 case is kept, though the image is newer than the segmentation in {tmp_path / 'out'}, and"
    )
    assert ": b. Delete" in text


def test_a_segmentation_that_was_corrected_is_not_taken_from_anybody(model, images, tmp_path):
    segment(model, images)
    labels, _ = read_labels(tmp_path / "out" / "a.nii.gz")
    write_nifti(tmp_path / "out" / "a.nii.gz", (labels > 5).astype("uint8"))
    assert segment(model, images)[0].skipped == ("a", "b")
    assert not read_labels(tmp_path / "out" / "a.nii.gz")[0].any()


@pytest.mark.parametrize("changes", [{"folds": (1,)}, {"step": 0.25}, {"checkpoint": "checkpoint_best.pth"}], ids=str)
def test_cases_that_were_made_otherwise_are_named_however_often_it_is_continued(model, images, changes):
    shutil.copyfile(model.folder / "fold_1/checkpoint_final.pth", model.folder / "fold_0/checkpoint_best.pth")
    segment(model, images / "a_0000.nii.gz", target=images.parent / "out", folds=(0,))
    for _ in range(2):
        _, (text,) = segment(model, images, **{"folds": (0,), **changes})
        assert text.startswith("1 finished case in ") and "by other weights or settings: a." in text
    assert not segment(model, images / "a_0000.nii.gz", target=images.parent / "out", folds=(0,))[1]


def test_a_model_that_was_moved_is_the_same(model, images, tmp_path):
    segment(model, images)
    model.folder.rename(tmp_path / model.folder.name)
    moved = type(model)(tmp_path / model.folder.name, model.plans, model.dataset, model.trainer, model.configuration)
    assert segment(moved, images)[1] == []


def test_parts_of_a_folder_keep_records_of_their_own(model, images, tmp_path):
    words = ["predict_from_modelfolder", "-i", images, "-o", tmp_path / "out", "-m", model.folder, "--disable_tta"]
    for part in "01":
        assert main([*map(str, words), "-device", "cpu", "-part_id", part, "-num_parts", "2"]) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.jsonl")} == {"made_of_0.jsonl", "made_of_1.jsonl"}
    assert set(read_records(tmp_path / "out")) == {"a", "b"}
    exchange(images)
    assert segment(model, images)[0].done == ("a", "b")


def test_all_files_of_an_image_count(tmp_path):
    image = sitk.GetImageFromArray(smooth_image((4, 6, 6))[0])
    sitk.WriteImage(image, str(tmp_path / "v.mhd"))
    sitk.WriteImage(image, str(tmp_path / "whole.mha"))
    tifffile.imwrite(tmp_path / "t_0000.tif", smooth_image((4, 6, 6))[0])
    (tmp_path / "t.json").write_text('{"spacing": [1, 1, 1]}')
    header = (tmp_path / "v.mhd").read_text().replace("v.raw", "p%02d.raw 1 2 1")
    (tmp_path / "n.mhd").write_text(header)
    for number in (1, 2):
        (tmp_path / f"p{number:02d}.raw").touch()
    write_series(tmp_path / "scan", smooth_image((4, 8, 8))[0].astype("int16"))
    names = {
        name: [p.name for p in files_behind(tmp_path / name, None)]
        for name in ("v.mhd", "whole.mha", "n.mhd", "t_0000.tif")
    }
    assert names == {
        "v.mhd": ["v.mhd", "v.raw"], "whole.mha": ["whole.mha"], "n.mhd": ["n.mhd", "p01.raw", "p02.raw"],
        "t_0000.tif": ["t_0000.tif", "t.json"],
    }  # fmt: skip
    slices = files_behind(tmp_path / "scan", "")
    assert len(slices) == 4
    noted = Files(slices).noted
    assert Files(slices).agree(noted) and not Files(slices[::-1]).agree(noted)


def test_files_in_folders_below_a_header_count(tmp_path):
    image = sitk.GetImageFromArray(smooth_image((4, 6, 6))[0])
    sitk.WriteImage(image, str(tmp_path / "v.mhd"))
    (tmp_path / "raw").mkdir()
    shutil.move(tmp_path / "v.raw", tmp_path / "raw" / "v.raw")
    for number in (1, 2):
        (tmp_path / "raw" / f"p{number:02d}.raw").touch()
    header, found = (tmp_path / "v.mhd").read_text(), {}
    for place in ("raw/v.raw", "raw\\v.raw", "./raw/v.raw", "LIST\nraw/v.raw", "raw/p%02d.raw 1 2 1"):
        (tmp_path / "v.mhd").write_text(header.replace("v.raw", place))
        found[place] = [p.name for p in files_behind(tmp_path / "v.mhd", None)]
    assert found.pop("raw/p%02d.raw 1 2 1") == ["v.mhd", "p01.raw", "p02.raw"]
    assert set(map(tuple, found.values())) == {("v.mhd", "v.raw")}


def test_files_that_did_not_move_are_not_read_again(model, images, tmp_path, monkeypatch):
    segment(model, images)
    before = (tmp_path / "out" / "made_of.jsonl").read_bytes()
    monkeypatch.setattr(Files, "content", property(lambda _: pytest.fail("the files were read")))
    assert segment(model, images)[0].skipped == ("a", "b")
    assert (tmp_path / "out" / "made_of.jsonl").read_bytes() == before


def test_where_the_results_were_pulled_out_nothing_is_written_in_their_place(model, images, tmp_path):
    target = tmp_path / "out"
    request = PredictFolderRequest.of(source=images, target=target, keep_finished=True, **CPU)
    failed = []

    def pull_out_after_the_first(event):
        if isinstance(event, CaseDone):
            shutil.move(target, tmp_path / "pulled")
        elif isinstance(event, CaseFailed):
            failed.append(event)

    result = drain(predict_folder(model, request), pull_out_after_the_first)
    assert result.done == ("a",) and list(result.failed) == ["b"]
    assert not target.exists()
    (failure,) = failed
    assert failure.message == (
        f"The results folder {target} is gone: was its disk removed? Bring it back, then segment the rest with "
        "--continue_prediction."
    )
    shutil.move(tmp_path / "pulled", target)
    result, _ = segment(model, images)
    assert (result.skipped, result.done) == (("a",), ("b",))
