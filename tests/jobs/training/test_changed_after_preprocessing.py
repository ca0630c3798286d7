"""Bits that flip within preprocessed files are refused before the first step; copies and nnU-Net's own files are not."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from helpers import TRAINED, Recipe, make_trainable
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, Progress, Stage, drain
from napari_nnunet.formats.preprocessed import digests
from napari_nnunet.formats.preprocessed.cases import case_names, open_case, remove_case, store_case
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.freshness import look_at_stored
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.jobs.training.prepare import check_training
from napari_nnunet.schema.requests.planning import PreprocessRequest
from napari_nnunet.schema.requests.training import TrainRequest

pytestmark = pytest.mark.usefixtures("in_one_process")
ASKED = TrainRequest(dataset=TRAINED, configuration="3d_fullres", fold="all")


@pytest.fixture
def workspace(tmp_path):
    make_trainable(tmp_path, Recipe(spacing=(1.0, 1.0, 1.0)))
    workspace = Workspace.at(tmp_path)
    shutil.rmtree(data_of(workspace))
    again(workspace)
    return workspace


def again(workspace):
    list(preprocess(workspace, PreprocessRequest(dataset=TRAINED, configurations=("3d_fullres",))))


def data_of(workspace):
    return workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres"


def said(workspace):
    """Return what is said of files, and how often they were compared."""
    events = list(check_training(workspace, [ASKED]))
    compared = [event for event in events if isinstance(event, Stage) and event.name.startswith("Comparing")]
    notes = [event.text for event in events if isinstance(event, Note)]
    return [text for text in notes if "Another program" in text], len(compared)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def write_otherwise(data):
    """Write all cases as another program does."""
    for name in case_names(data):
        case = open_case(data, name)
        parts = case.data[:] + 1, case.labels[:], case.read_properties()
        store_case(data, name, *parts, patch=(8, 8, 8), staging=data.parent)


@pytest.mark.parametrize("ending", [".b2nd", "_seg.b2nd", ".pkl"])
def test_a_flipped_bit_is_refused_with_what_to_do_and_what_is_made_anew_is_taken(workspace, ending):
    data = data_of(workspace)
    flip(data / f"c1{ending}")
    with pytest.raises(DatasetError, match=r"1 of \d preprocessed cases in .* do not hold .* \(c1\)") as caught:
        said(workspace)
    assert "Run 'preprocess --clean', which makes all cases again" in str(caught.value)
    assert "Plan dock" in caught.value.in_window
    remove_case(data, "c1")
    again(workspace)
    assert said(workspace) == ([], 0)


def test_a_copied_workspace_is_read_once_more_and_then_known(workspace):
    data = data_of(workspace)
    shutil.copytree(data, copy := data.with_name("copy"), copy_function=shutil.copyfile)
    for path in copy.iterdir():
        os.utime(path, (1e9, 1e9))
    shutil.rmtree(data)
    copy.rename(data)
    assert said(workspace) == ([], 1)
    assert said(workspace) == ([], 0)


def test_cases_that_another_program_wrote_anew_are_taken_and_it_is_said(workspace):
    data = data_of(workspace)
    write_otherwise(data)
    texts, _ = said(workspace)
    assert len(texts) == 1 and f"Another program wrote all preprocessed cases in {data} again" in texts[0]
    assert said(workspace) == ([], 0)  # it is noted, so that nothing is read again, and what changes later is refused
    flip(data / "c1.b2nd")
    with pytest.raises(DatasetError, match=r"1 of \d preprocessed cases in .* do not hold .* \(c1\)"):
        said(workspace)


def test_a_case_that_is_added_to_those_of_another_program_is_no_damage(workspace):
    data = data_of(workspace)
    write_otherwise(data)
    assert len(said(workspace)[0]) == 1
    raw = workspace.raw / TRAINED
    for folder in ("imagesTr", "labelsTr"):
        for path in list((raw / folder).glob("c1*")):
            shutil.copy(path, path.with_name(path.name.replace("c1", "added", 1)))
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**content, "numTraining": content["numTraining"] + 1}))
    again(workspace)
    assert "added" in case_names(data) and said(workspace) == ([], 0)


def test_a_single_case_is_taken_where_another_program_wrote_each_of_its_files(workspace):
    data = data_of(workspace)
    flip(data / "c1.b2nd")
    with pytest.raises(DatasetError, match=r"1 of 1 preprocessed cases"):
        drain(look_at_stored(data, ["c1"]))
    flip(data / "c1_seg.b2nd")
    flip(data / "c1.pkl")
    notes = [event.text for event in look_at_stored(data, ["c1"]) if isinstance(event, Note)]
    assert len(notes) == 1 and "Another program wrote" in notes[0]
    assert list(look_at_stored(data, ["c1"])) == []


def test_two_damaged_cases_that_are_all_there_are_are_no_work_of_another_program(workspace):
    data = data_of(workspace)
    for name in ("c1", "c2"):
        flip(data / f"{name}.b2nd")
    with pytest.raises(DatasetError, match=r"2 of 2 preprocessed cases in .* do not hold .* \(c1, c2\)"):
        drain(look_at_stored(data, ["c1", "c2"]))


def test_what_is_compared_is_read_once_and_says_how_far_it_is(workspace, monkeypatch):
    data, read = data_of(workspace), []
    write_otherwise(data)
    real = digests._digest
    monkeypatch.setattr(digests, "_digest", lambda path: read.append(path) or real(path))
    events = list(look_at_stored(data, case_names(data)))
    assert len(read) == len(set(read)) == 3 * len(case_names(data))
    assert [event.done for event in events if isinstance(event, Progress)] == [1, 2, 3, 4, 5]


def test_a_damaged_journal_does_not_end_the_comparison(workspace):
    data = data_of(workspace)
    journal = Journal.of(data)
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    journal.path.write_text("".join(json.dumps({**line, "made_from": 5}) + "\n" for line in lines if line["made_from"]))
    os.utime(data / "c1.b2nd", (1e9, 1e9))
    drain(look_at_stored(data, case_names(data)))


def test_a_journal_of_an_earlier_version_says_nothing_of_files(workspace):
    journal = Journal.of(data_of(workspace))
    made = journal.read()
    journal.path.unlink()
    for name, digest in made.items():
        journal.note([name], digest)
    flip(data_of(workspace) / "c1.b2nd")
    assert journal.stored() == {} and said(workspace) == ([], 0)
