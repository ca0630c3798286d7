"""Before and after of a model that was improved are measured against the same labels."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import Recipe, make_model, write_nifti
from napari_nnunet.events import drain
from napari_nnunet.formats.model.fold import CONTINUED_FILE, FoldFolder
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.jobs.choosing.evaluate import Rules, evaluate_folder
from napari_nnunet.jobs.training.improve import compared
from turned_files import claim_mirrored

SHAPE = (6, 14, 12)
DATASET = "Dataset001_Tiny"


def box(z):
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:z, 2:8, 2:8] = 1
    return labels


@pytest.fixture
def told(tmp_path):
    """Validates both models on two cases, of which the labels of one are corrected between; returns what is said."""
    old = make_model(tmp_path / "nnUNet_results", Recipe(labels={"background": 0, "a": 1}, name=DATASET))
    info, rules = load_model(old.folder).dataset, Rules.of(load_model(old.folder).dataset)
    before = old.folder / "fold_0" / "validation"
    fold = FoldFolder(old.folder.with_name("nnUNetTrainer__nnUNetPlans_continued__3d_fullres") / "fold_0")
    references = tmp_path / "labelsTr"

    data = tmp_path / "nnUNetPlans_3d_fullres"

    def tell(*, lost=(), lies=False):
        for folder in (before, fold.validation, references):
            folder.mkdir(parents=True)
        for folder, z in ((before, 5), (fold.validation, 5), (references, 3)):
            for name in ("c0", "c1"):
                write_nifti(folder / f"{name}.nii.gz", box(z))
                os.utime(folder / f"{name}.nii.gz", (1, 1))
        drain(evaluate_folder(references, before, rules))
        write_nifti(references / "c0.nii.gz", box(5))
        later = (before / "summary.json").stat().st_mtime + 10
        os.utime(references / "c0.nii.gz", (later, later))
        drain(evaluate_folder(references, fold.validation, rules))
        for name in lost:
            (before / f"{name}.nii.gz").unlink()
        if lies:
            claim_mirrored(references / "c0.nii.gz")
            os.utime(references / "c0.nii.gz", (later, later))
            Journal.of(data).note(["c0"], "rules:files:content:ignore")
        (fold.path / CONTINUED_FILE).write_text(json.dumps({"model": str(old.folder)}))
        order = SimpleNamespace(folder=fold, fold=0, data=data, info=info, plans=load_model(old.folder).plans)
        said = [note.text for note in compared(order)]
        kept = json.loads((fold.path / CONTINUED_FILE).read_text())
        assert kept.get("note") == (said[0] if len(lost) == 2 else None)  # for the dock
        return said

    return tell


def test_the_same_segmentations_are_as_good_before_and_after_whatever_was_corrected_between(told):
    assert told() == ["Dice on the 2 cases that both models validated: a 0.8333 -> 0.8333."]


def test_a_case_that_was_preprocessed_whatever_its_headers_say_is_measured_so(told):
    assert told(lies=True) == ["Dice on the 2 cases that both models validated: a 0.8333 -> 0.8333."]


def test_a_case_whose_earlier_segmentation_is_lost_is_left_out_and_named(told):
    missing, dice = told(lost=["c0"])
    assert missing.startswith("c0 is not compared, as its labels changed since the earlier model was validated: ")
    assert dice == "Dice on the 1 case that both models validated: a 0.6667 -> 0.6667."


def test_where_the_earlier_model_has_figures_only_it_is_said_whose_labels_they_are_of(told):
    doubt, dice = told(lost=["c0", "c1"])
    assert doubt.startswith("The earlier model came without its segmentations of these cases: its Dice is that against")
    assert dice == "Dice on the 2 cases that both models validated: a 0.6667 -> 0.8333."
