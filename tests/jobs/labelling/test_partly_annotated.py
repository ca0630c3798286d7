"""A case in which only some classes were looked for is corrected: what is labelled then counts, and that is said."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import smooth_image, write_nifti
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.jobs.dataset.cases import NewCase, add_case, correct_reference
from napari_nnunet.schema.dataset import ANNOTATED
from napari_nnunet.schema.geometry import Geometry

SHAPE = (6, 16, 18)
CLASSES = {"background": 0, "liver": 1, "spleen": 2, "kidney": 3}


def labels_of(*values):
    labels = np.zeros(SHAPE, np.uint8)
    for value in values:
        labels[1:3, 2 + 3 * value : 4 + 3 * value, 3:9] = value
    return labels


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "nnUNet_raw" / "Dataset001_Organs"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for i, name in enumerate("ab"):
        write_nifti(folder / "imagesTr" / f"{name}_0000.nii.gz", smooth_image(SHAPE, seed=i)[0])
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", labels_of(1))
    said = {"a": ["liver"], "b": ["liver"]}
    about = {"channel_names": {"0": "CT"}, "labels": CLASSES, "numTraining": 2, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", {**about, ANNOTATED: said})
    return folder


def corrected(folder, labels):
    return correct_reference(folder, "a", labels)


def saved(folder, labels, **changes):
    return add_case(
        NewCase(
            folder=folder, name="a", channels=[smooth_image(SHAPE)[0]], labels=labels,
            geometry=Geometry(spacing=(1.0, 1.0, 1.0)),
            mapping={value: value for value in range(4)}, classes=CLASSES, channel_names=("CT",), file_ending=".nii.gz",
            **changes,
        )
    )  # fmt: skip


@pytest.mark.parametrize("how", [corrected, saved])
def test_a_class_that_is_labelled_now_counts_as_looked_for_in_this_case(folder, how):
    events = []
    drain(how(folder, labels_of(1, 3)), events.append)
    assert read_info(folder).annotated == {"a": ("liver", "kidney"), "b": ("liver",)}
    (said,) = [event for event in events if isinstance(event, Note)]
    assert said.level == "warning"
    assert said.text == (
        "In a, kidney: labelled now, so that it counts as looked for, and as background where it is not labelled; "
        "spleen: not looked for, as before, so that it does not count as background."
    )


@pytest.mark.parametrize("how", [corrected, saved])
def test_what_is_still_unknown_is_said(folder, how):
    events = []
    drain(how(folder, labels_of(1)), events.append)
    assert read_info(folder).annotated == {"a": ("liver",), "b": ("liver",)}
    (said,) = [event.text for event in events if isinstance(event, Note)]
    assert said == "In a, spleen, kidney: not looked for, as before, so that it does not count as background."


def test_a_case_of_another_image_is_complete_where_all_was_looked_for(folder):
    events = []
    drain(saved(folder, labels_of(1), looked_here=True), events.append)
    assert read_info(folder).annotated == {"b": ("liver",)}
    assert not [event for event in events if isinstance(event, Note)]
