"""What the Train dock says of a validation."""

from __future__ import annotations

import math

import pytest

from napari_nnunet.events import Ended
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.processes.follow import Training
from napari_nnunet.widgets.training.words import note_line, validation_line

NAMES = {"1": "Organ", "2": "Lesion"}


@pytest.mark.parametrize(
    ("lesion", "said"),
    [
        (0.2, "mean Dice 0.5500 (over cases, then over classes)"),
        (math.nan, "no mean Dice, as Lesion occurs in no validation case"),
    ],
)
def test_a_mean_says_what_it_is_taken_over_and_a_missing_one_says_why(lesion, said):
    classes = {"1": {"Dice": 0.9}, "2": {"Dice": lesion}}
    summary = Summary({"Dice": (0.9 + lesion) / 2}, classes)
    assert said in validation_line(summary, NAMES)


def test_a_training_that_was_killed_says_how_to_continue_and_not_what_it_said_last(tmp_path):
    folder = FoldFolder.at(tmp_path / "nnUNetTrainer__nnUNetPlans__2d", 0)
    said = "Going on from checkpoint_latest.pth."
    assert note_line(Training(folder, "running", note=said)) == said
    assert note_line(Training(folder, "interrupted", note=said)) == "Its folder was deleted while it was trained."
    folder.path.mkdir(parents=True)
    killed = note_line(Training(folder, "interrupted", note=said))
    assert killed.startswith("Its process ended without a message") and "Resume continues from the last" in killed
    assert note_line(Training(folder, "failed", note=said, ended=Ended(how="failed", text="No room."))) == "No room."
