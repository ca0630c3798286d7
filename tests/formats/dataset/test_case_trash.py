"""Images and labels of training cases that were replaced or removed can be brought back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import dataset_json, make_dataset
from napari_nnunet.errors import DatasetError, ResourceError
from napari_nnunet.formats.dataset import raw_writer, relabel
from napari_nnunet.formats.dataset.case_trash import cases_in_trash, doubts, parts_in_trash
from napari_nnunet.formats.dataset.raw_dataset import read_info, survey
from napari_nnunet.formats.dataset.raw_writer import bring_case_back, drop_case, save_case, set_labels
from napari_nnunet.formats.dataset.relabel import bring_labels_back, change_classes, remap_dataset
from napari_nnunet.formats.images.files import read_labels, read_volume, write_labels
from napari_nnunet.formats.trash import trashed


@pytest.fixture
def raw(tmp_path):
    folder = make_dataset(tmp_path, cases=3)
    for path in sorted((folder / "labelsTr").iterdir()):
        labels, geometry = read_labels(path)
        labels[:4][labels[:4] == 1] = 2
        write_labels(labels, geometry, path)
    dataset_json(folder, labels={"background": 0, "a": 1, "b": 2})
    return folder


def content(raw, name="c1"):
    files = [raw / "imagesTr" / f"{name}_0000.nii.gz", raw / "labelsTr" / f"{name}.nii.gz"]
    return [path.read_bytes() if path.is_file() else None for path in files]


def save(raw, *, image=0.0, value=1, name="c1"):
    case = next(case for case in survey(raw)[0].cases if case.name == name)
    volume = read_volume(case.images)
    labels = read_labels(case.label)[0]
    save_case(raw, name, [np.asarray(volume.array)[0] + image], np.full_like(labels, value), volume.geometry)


def values(raw):
    return [sorted(np.unique(read_labels(case.label)[0]).tolist()) for case in survey(raw)[0].cases]


def test_a_removed_case_comes_back(raw):
    before = content(raw)
    drop_case(raw, "c1")
    assert read_info(raw).raw["numTraining"] == 2
    [entry] = cases_in_trash(raw)
    assert (entry.name, parts_in_trash(entry), doubts(raw, entry)) == ("c1", "images and labels", "")
    bring_case_back(raw, entry)
    assert content(raw) == before
    assert cases_in_trash(raw) == []
    assert len(survey(raw)[0].cases) == 3 and read_info(raw).raw["numTraining"] == 3


def test_labels_are_exchanged_with_those_that_took_their_place(raw):
    before = content(raw)
    save(raw, value=1)
    after = content(raw)
    assert before[0] == after[0] and before[1] != after[1]
    [entry] = cases_in_trash(raw)
    assert parts_in_trash(entry) == "labels"
    bring_case_back(raw, entry)
    assert content(raw) == before
    bring_case_back(raw, cases_in_trash(raw)[0])
    assert content(raw) == after


def test_labels_of_an_image_that_is_gone_are_doubted(raw):
    save(raw, value=1)
    [labels] = cases_in_trash(raw)
    assert doubts(raw, labels) == ""
    save(raw, image=5.0, value=0)
    assert "c1_0000.nii.gz was replaced after these labels" in doubts(raw, labels)
    whole = next(entry for entry in cases_in_trash(raw) if parts_in_trash(entry) == "images and labels")
    assert doubts(raw, whole) == ""
    bring_case_back(raw, whole)
    assert doubts(raw, labels) == ""


def test_labels_of_other_classes_are_doubted(raw):
    save(raw, value=1)
    [entry] = cases_in_trash(raw)
    name = read_info(raw).labels.names[1]
    set_labels(raw, {"background": 0, "another": 1, name: 2, "more": 3})
    assert doubts(raw, entry) == f"The class '{name}' had the value 1 then."


def test_what_cannot_be_brought_back_stays_in_the_trash(raw, monkeypatch):
    drop_case(raw, "c1")
    [entry] = cases_in_trash(raw)
    from napari_nnunet.formats.dataset import case_trash

    move, calls = case_trash.shutil.move, []

    def refuse(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise PermissionError(13, "no")
        return move(source, target)

    monkeypatch.setattr(case_trash.shutil, "move", refuse)
    with pytest.raises(Exception, match="No permission"):
        bring_case_back(raw, entry)
    assert content(raw) == [None, None]
    assert len(list(entry.path.rglob("*.nii.gz"))) == 2


def test_classes_are_renamed_without_touching_files(raw):
    before = [content(raw, name) for name in ("c0", "c1", "c2")]
    first, second = list(read_info(raw).labels.labels)[1:3]
    change_classes(raw, {first: "cell"})
    assert read_info(raw).labels.labels == {"background": 0, "cell": 1, second: 2}
    assert [content(raw, name) for name in ("c0", "c1", "c2")] == before
    assert trashed(raw / "trash") == []


def test_classes_are_merged_and_removed_in_files_too_and_all_of_it_comes_back(raw):
    before, info = [content(raw, name) for name in ("c0", "c1", "c2")], read_info(raw)
    first, second = list(info.labels.labels)[1:3]
    assert values(raw)[0] == [0, 1, 2]
    assert change_classes(raw, {second: first}) == {0: 0, 1: 1, 2: 1}
    assert read_info(raw).labels.labels == {"background": 0, first: 1}
    assert values(raw) == [[0, 1]] * 3
    [entry] = trashed(raw / "trash")
    assert entry.name == "labels of all cases" and cases_in_trash(raw) == []
    bring_labels_back(raw, entry)
    assert [content(raw, name) for name in ("c0", "c1", "c2")] == before
    assert read_info(raw).labels == info.labels
    change_classes(raw, {first: ""})
    assert read_info(raw).labels.labels == {"background": 0, second: 1}
    assert values(raw) == [[0, 1]] * 3


def test_labels_do_not_come_back_over_a_case_that_was_changed_since(raw):
    first, second = list(read_info(raw).labels.labels)[1:3]
    change_classes(raw, {second: first})
    entry = trashed(raw / "trash")[0]
    save(raw, value=1)
    with pytest.raises(DatasetError, match="c1 was added or changed since"):
        bring_labels_back(raw, entry)


def test_renumbered_labels_go_to_the_trash(raw):
    before = [content(raw, name) for name in ("c0", "c1", "c2")]
    info = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    (raw / "dataset.json").write_text(json.dumps({**info, "labels": {"background": 0, "a": 2, "b": 1}}))
    remap_dataset(raw)
    [entry] = trashed(raw / "trash")
    assert [(entry.path / "labelsTr" / f"c{i}.nii.gz").read_bytes() for i in range(3)] == [b[1] for b in before]


@pytest.mark.parametrize(
    ("names", "words"),
    [({"nothing": "x"}, "has no class 'nothing'"), ({"background": "x"}, "has no class"), (None, "At least one class")],
)
def test_changes_that_leave_no_dataset_are_refused(raw, names, words):
    names = names or dict.fromkeys(list(read_info(raw).labels.labels)[1:], "")
    with pytest.raises(DatasetError, match=words):
        change_classes(raw, names)


def test_an_interrupted_exchange_of_labels_is_finished_before_the_next_change(raw, monkeypatch):
    first, second = list(read_info(raw).labels.labels)[1:3]
    replace, calls = relabel.os.replace, []

    def stop(source, target):
        if "labelsTr" in str(target) and "trash" not in str(target):
            calls.append(target)
            if len(calls) == 2:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(relabel.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        change_classes(raw, {second: first})
    monkeypatch.setattr(relabel.os, "replace", replace)
    change_classes(raw, {first: "cell"})
    assert read_info(raw).labels.labels == {"background": 0, "cell": 1}
    assert values(raw) == [[0, 1]] * 3


def test_a_case_stays_where_a_full_disk_does_not_let_its_dataset_say_that_it_is_gone(raw, monkeypatch):
    before = content(raw)

    def full(*_):
        raise ResourceError("No space left")

    monkeypatch.setattr(raw_writer, "write_json", full)
    with pytest.raises(ResourceError, match="No space left"):
        drop_case(raw, "c1")
    assert content(raw) == before
    assert cases_in_trash(raw) == []
