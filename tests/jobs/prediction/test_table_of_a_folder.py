"""The table of a folder: what is in each image, how long it took, what failed; complete after every case."""

from __future__ import annotations

import csv
import time

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import smooth_image, write_nifti
from napari_nnunet.cli.main import main
from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.events import CaseDone, Note, drain
from napari_nnunet.formats.dataset.case_files import Case
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.jobs.prediction import table
from napari_nnunet.jobs.prediction.combined import Combination, Member
from napari_nnunet.jobs.prediction.predict_files import predict_combined_folder, predict_folder
from napari_nnunet.schema.requests.prediction import PredictFolderRequest, PredictSettings

CPU = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False, "table": True}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i, name in enumerate("acd"):
        write_nifti(folder / f"{name}_0000.nii.gz", smooth_image((8, 16, 18), seed=i)[0], spacing=(2.0, 1.0, 0.5))
    (folder / "b_0000.nii.gz").write_bytes(b"no image")
    return folder


def _rows(folder):
    with (folder / "table.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _expected(folder, name):
    counts = np.bincount(read_labels(folder / f"{name}.nii.gz")[0].ravel(), minlength=3)
    return {"organ voxels": f"{counts[1]}", "organ mm3": f"{float(counts[1]):.7g}", "lesion voxels": f"{counts[2]}"}


def test_it_has_a_line_for_every_case_whatever_became_of_it(model, images, tmp_path):
    out = tmp_path / "out"
    drain(predict_folder(model, PredictFolderRequest.of(source=images, target=out, **CPU)))
    rows = _rows(out)
    assert [(row["image"], row["state"]) for row in rows] == [
        ("a", "done"), ("b", "failed"), ("c", "done"), ("d", "done")
    ]  # fmt: skip
    for row in (rows[0], rows[2], rows[3]):
        assert _expected(out, row["image"]).items() <= row.items()
        assert float(row["seconds"]) > 0
    assert "b_0000.nii.gz" in rows[1]["reason"]


def test_a_cancelled_folder_has_the_table_of_what_is_done_and_goes_on(model, images, tmp_path):
    out = tmp_path / "out"
    request = PredictFolderRequest.of(source=images, target=out, **CPU)
    job = predict_folder(model, request)
    while not isinstance(next(job), CaseDone):
        pass
    job.close()
    assert [row["image"] for row in _rows(out)] == ["a"]
    drain(predict_folder(model, request.replace(keep_finished=True)))
    rows = _rows(out)
    assert [row["state"] for row in rows] == ["kept", "failed", "done", "done"]
    assert _expected(out, "a").items() <= rows[0].items()


@pytest.mark.parametrize("cancelled", [False, True])
def test_of_thousands_of_cases_it_is_not_written_thousands_of_times(tmp_path, monkeypatch, cancelled):
    """All of it is written each time: 20,000 cases that were finished before would take an hour to be passed over."""
    written = []
    monkeypatch.setattr(table, "write_text", lambda path, text: (time.sleep(0.002), written.append(text)))

    def job():
        for i in range(5000):
            yield CaseDone(case=f"{i}", index=i, total=5001, path="", seconds=0.0, skipped=True)
        yield Note(text="one more")

    running = table.written_down(job(), tmp_path / "table.csv")
    while not isinstance(next(running), Note):
        pass
    running.close() if cancelled else list(running)
    assert len(written) < 500
    assert written[-1].count("kept") == 5000


def test_the_shell_writes_it_where_it_is_asked_for(model, images, tmp_path):
    words = ["predict_from_modelfolder", "-i", str(images), "-o", str(tmp_path / "out"), "-m", str(model.folder)]
    assert main([*words, "-device", "cpu", "--disable_tta"]) == 1  # b is no image
    assert not (tmp_path / "out" / "table.csv").exists()
    main([*words, "-device", "cpu", "--disable_tta", "--c", "--table"])
    assert [row["state"] for row in _rows(tmp_path / "out")] == ["kept", "failed", "kept", "kept"]


def test_no_case_is_held_against_the_others(model, images, tmp_path, monkeypatch):
    """Their number may be in the thousands; looking each up among all of them took longer than reading it."""

    def compared(*_):
        raise AssertionError("two cases are compared")

    monkeypatch.setattr(Case, "__eq__", compared)
    result = drain(predict_folder(model, PredictFolderRequest.of(source=images, target=tmp_path / "out", **CPU)))
    assert result.done == ("a", "c", "d")


def test_what_others_left_in_the_folder_is_kept_with_a_word(new_model, images, tmp_path):
    (images / "b_0000.nii.gz").unlink()
    out = tmp_path / "out"
    first, second = new_model(), new_model(name="Dataset002_Other", seed=3)
    request = PredictFolderRequest.of(source=images, target=out, keep_finished=True, **CPU)

    def said(model, request):
        events = []
        drain(predict_folder(model, request), events.append)
        return [event.text for event in events if isinstance(event, Note) and "finished cases" in event.text]

    assert not said(first, request)
    assert not said(first, request)  # all are kept, and are its own
    (text,) = said(second, request)
    assert text.startswith(
        f"3 finished cases in {out} are kept, though the folder holds segmentations by other weights or settings"
    )
    assert "a, c, d" in text and said(second, request) == [text]  # it stays so, whatever the last run was
    (out / "made_of.jsonl").unlink()  # of an earlier version
    (text,) = said(first, request)
    assert text.startswith(f"3 finished cases in {out} are kept, though the folder holds results of another model")
    assert said(second, request.replace(region=(0, 4, 0, 8, 0, 8)))


def test_the_previous_stage_is_laid_onto_its_image(new_model, images, tmp_path):
    for name in "bcd":
        (images / f"{name}_0000.nii.gz").unlink()
    new_model(configuration="3d_lowres", spacing=(2.0, 2.0, 2.0))
    model = new_model(configuration="3d_cascade_fullres", previous_stage="3d_lowres", seed=5)
    labels = np.zeros((8, 16, 18), np.uint8)
    labels[1:4, 2:9, 3:7] = 1
    found = {}
    for how, flip in (("as it lies", False), ("stored mirrored", True)):
        folder = tmp_path / how
        folder.mkdir()
        image = sitk.ReadImage(str(images / "a_0000.nii.gz"))
        mask = sitk.GetImageFromArray(labels)
        mask.CopyInformation(image)
        sitk.WriteImage(sitk.Flip(mask, (True, False, False)) if flip else mask, str(folder / "a.nii.gz"))
        request = PredictFolderRequest.of(source=images, target=tmp_path / f"{how} out", previous=folder, **CPU)
        assert not drain(predict_folder(model, request)).failed
        found[how] = read_labels(tmp_path / f"{how} out" / "a.nii.gz")[0]
    np.testing.assert_array_equal(found["stored mirrored"], found["as it lies"])
    elsewhere = sitk.GetImageFromArray(labels)
    elsewhere.SetOrigin((500, 0, 0))
    sitk.WriteImage(elsewhere, str(tmp_path / "as it lies" / "a.nii.gz"))
    request = PredictFolderRequest.of(source=images, target=tmp_path / "out", previous=tmp_path / "as it lies", **CPU)
    assert "previous stage's segmentation" in drain(predict_folder(model, request)).failed["a"].message
    with pytest.raises(DatasetError, match="lacks the previous stage's segmentation of 1 of 1 case: a.nii.gz"):
        drain(predict_folder(model, request.replace(previous=tmp_path / "nowhere")))


def test_a_model_without_a_previous_stage_takes_none(model, images, tmp_path):
    request = PredictFolderRequest.of(source=images, target=tmp_path / "out", previous=images, **CPU)
    with pytest.raises(SettingsError, match="is not the second stage of a cascade"):
        drain(predict_folder(model, request))
    assert not (tmp_path / "out").exists()


def test_what_another_ensemble_left_in_the_folder_is_kept_with_a_word(new_model, images, tmp_path):
    (images / "b_0000.nii.gz").unlink()
    one, other, third = (
        new_model(),
        new_model(name="Dataset002_Other", seed=3),
        new_model(name="Dataset003_New", seed=7),
    )
    how = {name: value for name, value in CPU.items() if name != "table"}
    members = tuple(Member(model, PredictSettings.of(**how)) for model in (one, other))
    request = PredictFolderRequest.of(source=images, target=tmp_path / "out", keep_finished=True, **CPU)

    def said(combination, request=request):
        events = []
        drain(predict_combined_folder(combination, request), events.append)
        return [event.text for event in events if isinstance(event, Note) and "finished cases" in event.text]

    first = Combination(members)
    assert not said(first)
    assert not said(first)
    assert said(Combination(members, VoteSettings(weights=(1.0, 3.0))))
    assert not said(first)  # what lies there was made without the weights
    assert said(Combination((members[0], Member(third, members[1].settings))))
    assert said(Combination((members[1], members[0])))
    region = request.replace(target=tmp_path / "part", region=(0, 4, 0, 8, 0, 8))
    assert not said(first, region)
    assert not said(first, region)


def test_rules_of_objects_that_were_chosen_since_are_said(new_model, images, tmp_path):
    (images / "b_0000.nii.gz").unlink()
    model = new_model()
    request = PredictFolderRequest.of(source=images, target=tmp_path / "out", keep_finished=True, **CPU)

    def said():
        events = []
        drain(predict_folder(model, request), events.append)
        return [event.text for event in events if isinstance(event, Note) and "finished cases" in event.text]

    assert not said()
    (model.folder / "fold_0" / "object_rules.json").write_text('{"rules": {"cell": {"seed": 0.7}}}')
    assert said()
    assert said()  # they are still those of other rules
