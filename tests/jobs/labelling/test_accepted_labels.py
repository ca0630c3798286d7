"""What looks wrong and was found right stays off the list; copies and masks of other cases are named."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from suspected import CASES, DATASET, elsewhere, request, see, truth

from choices import run_verb
from helpers import write_nifti
from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.events import drain
from napari_nnunet.jobs.labelling.label_errors import find_label_errors


def test_what_was_found_right_is_not_listed_again_until_something_changes_there(suspected, capsys):
    workspace, spoil, _ = suspected
    labels = truth(4)
    labels[2:6, 18:22, 4:16] = 1
    spoil(4, labels)
    spoil(7, np.choose(truth(7), [0, 2, 1]).astype(np.uint8))
    raw = workspace.raw / DATASET
    assert {case.name for case in drain(find_label_errors(workspace, request())).suspects} == {"c04", "c07"}
    assert run_verb("find_label_errors", "-d", 1, "--workspace", workspace.raw.parent, "--accept", "c04") == 0
    out = capsys.readouterr().out
    assert "1 of 12 cases looks wrong" in out and "Accepted, in " in out and "accepted_labels.csv: c04." in out
    kept = (raw / "accepted_labels.csv").read_text(encoding="utf-8")
    assert kept.splitlines()[1].startswith('c04,"organ, seen as background",')
    found = drain(find_label_errors(workspace, request()))
    assert [case.name for case in found.suspects] == ["c07"]
    rows = list(csv.DictReader(found.file.read_text(encoding="utf-8").splitlines()))
    assert {row["suspect"] for row in rows if row["case"] == "c04"} == {"accepted"}
    labels[2:6, 18:22, 4:9] = 2
    spoil(4, labels)  # drawn otherwise now
    assert "c04" in {case.name for case in drain(find_label_errors(workspace, request())).suspects}


def test_a_part_that_was_found_right_stays_so_where_another_network_sees_about_the_same(suspected):
    workspace, spoil, model = suspected
    labels = truth(4)
    labels[2:6, 18:22, 2:12] = 1
    labels[2:6, 2:8, 16:21] = 2
    spoil(4, labels)
    first = drain(find_label_errors(workspace, request()))
    assert [len(case.parts) for case in first.suspects] == [2]
    found = drain(find_label_errors(workspace, request(accept=("c04:1",))))
    assert [case.doubted for case in found.suspects] == [(1,)]
    assert "organ, seen as background" in (workspace.raw / DATASET / "accepted_labels.csv").read_text(encoding="utf-8")
    seen = truth(4)
    seen[2, 18, 2:5] = 1  # a few voxels less are contradicted
    see(model, 4, seen)
    assert [case.doubted for case in drain(find_label_errors(workspace, request())).suspects] == [(1,)]
    seen[2:6, 18:20, 2:12] = 1  # half of it: another place
    see(model, 4, seen)
    assert [len(case.doubted) for case in drain(find_label_errors(workspace, request())).suspects] == [2]


def test_another_place_of_an_accepted_case_is_listed(suspected):
    workspace, spoil, model = suspected
    labels = truth(4)
    labels[2:6, 18:22, 4:16] = 1
    spoil(4, labels)
    drain(find_label_errors(workspace, request(accept=("c04",))))
    seen = labels.copy()
    seen[2:6, 2:8, 15:21] = 2  # another network agrees there, and contradicts as many voxels elsewhere
    see(model, 4, seen)
    (case,) = drain(find_label_errors(workspace, request())).suspects
    assert case.name == "c04" and [case.parts[n].seen for n in case.doubted] == [2]


def test_a_case_of_which_no_part_stands_out_is_accepted_as_a_whole(suspected):
    """Every contradicted voxel by itself, as far as a list of parts goes."""
    workspace, spoil, _ = suspected
    spoil(7, np.where(np.indices((8, 24, 22)).sum(0) % 2, truth(7), 0).astype(np.uint8))
    (case,) = drain(find_label_errors(workspace, request(accept=("c07",)))).accepted
    assert not case.suspect
    assert drain(find_label_errors(workspace, request())).suspects == ()


def test_what_was_found_right_is_doubted_again_when_it_is_asked(suspected):
    workspace, spoil, _ = suspected
    spoil(7, np.choose(truth(7), [0, 2, 1]).astype(np.uint8))
    drain(find_label_errors(workspace, request(accept=("c07",))))
    assert drain(find_label_errors(workspace, request())).suspects == ()
    assert [case.name for case in drain(find_label_errors(workspace, request(doubt=("c07",)))).suspects] == ["c07"]
    assert not (workspace.raw / DATASET / "accepted_labels.csv").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"accept": ("c99",)}, "No case c99 was examined"),
        ({"accept": ("c07:9",)}, r"c07 has \d parts? that may be accepted; c07:9 is none of them"),
        ({"accept": ("c07:²",)}, "c07:² is none of them"),
        ({"doubt": ("c07",)}, "Nothing of c07 was accepted, so that it cannot be doubted again"),
    ],
)
def test_what_cannot_be_accepted_or_doubted_is_refused(suspected, asked, said):
    workspace, spoil, _ = suspected
    spoil(7, np.choose(truth(7), [0, 2, 1]).astype(np.uint8))
    with pytest.raises(SettingsError, match=said):
        drain(find_label_errors(workspace, request(**asked)))
    assert not (workspace.raw / DATASET / "accepted_labels.csv").exists()


@pytest.mark.parametrize(("before", "after"), [(" to ", "-"), (" to ", " to " + 5000 * "9"), (",1,2,", ",²,2,")])
def test_a_line_that_somebody_spoiled_is_named(suspected, before, after):
    workspace, spoil, _ = suspected
    spoil(7, np.choose(truth(7), [0, 2, 1]).astype(np.uint8))
    drain(find_label_errors(workspace, request(accept=("c07",))))
    path = workspace.raw / DATASET / "accepted_labels.csv"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"accepted_labels.csv, line \d is not as it was written"):
        drain(find_label_errors(workspace, request()))


def test_copies_stand_in_the_table_and_in_the_list(suspected, capsys):
    workspace, spoil, _ = suspected
    raw = workspace.raw / DATASET
    make_images(workspace, alike=(3, 9))
    for number in (2, 6):
        spoil(number, elsewhere(2))
    found = drain(find_label_errors(workspace, request()))
    rows = {row["case"]: row for row in csv.DictReader(found.file.read_text(encoding="utf-8").splitlines())}
    assert (rows["c02"]["same labels"], rows["c02"]["same image"]) == ("c06", "")
    assert (rows["c09"]["same labels"], rows["c09"]["same image"]) == ("", "c03")
    assert run_verb("find_label_errors", "-d", 1, "--workspace", raw.parent.parent) == 0
    out = capsys.readouterr().out
    assert "Copies: c02, c06: the same labels for different images: they cannot all be right." in out
    assert "Copies: c03, c09: the same image, with different labels: they cannot all be right." in out


def make_images(workspace, alike):
    """Give the dataset images, of which two are the same."""
    folder = workspace.raw / DATASET / "imagesTr"
    folder.mkdir()
    info = json.loads((next(workspace.results.glob("*/*")) / "dataset.json").read_text(encoding="utf-8"))
    (workspace.raw / DATASET / "dataset.json").write_text(json.dumps(info))
    for number in range(CASES):
        rng = np.random.default_rng(min(alike) if number in alike else number)
        write_nifti(folder / f"c{number:02}_0000.nii.gz", rng.normal(size=(8, 24, 22)).astype(np.float32))


def test_the_mask_of_another_case_is_named_instead_of_a_shift(suspected):
    workspace, spoil, model = suspected
    see(model, 2, elsewhere(2))
    spoil(2, elsewhere(2))
    spoil(10, elsewhere(2))
    told = {case.name: case for case in drain(find_label_errors(workspace, request())).cases}
    assert told["c10"].suspect and not told["c02"].suspect
    assert [slip.text for slip in told["c10"].slips] == ["another case's mask: the labels are those of c02"]
    cut = elsewhere(2)
    cut[:, np.flatnonzero(cut.any(axis=(0, 2)))[-1]] = 0  # as where it was fitted into a smaller image
    spoil(10, cut)
    told = {case.name: case for case in drain(find_label_errors(workspace, request())).cases}
    assert told["c10"].twins == ()
    assert [slip.kind for slip in told["c10"].slips] == ["another case's"]


def test_masks_that_were_exchanged_name_each_other(suspected):
    workspace, spoil, model = suspected
    see(model, 2, elsewhere(2))
    spoil(2, truth(10))
    spoil(10, elsewhere(2))
    told = {case.name: case.text for case in drain(find_label_errors(workspace, request())).cases}
    assert told["c02"].startswith("another case's mask: exchanged with c10")
    assert told["c10"].startswith("another case's mask: exchanged with c02")


def test_a_shift_is_still_a_shift(suspected):
    workspace, spoil, _ = suspected
    spoil(8, np.roll(truth(8), 4, axis=1))
    spoil(9, np.choose(truth(9), [0, 2, 1]).astype(np.uint8))
    told = {case.name: case.slips for case in drain(find_label_errors(workspace, request())).cases}
    assert [slip.kind for slip in told["c08"]] == ["shifted"]
    assert [slip.kind for slip in told["c09"]] == ["swapped"]
