"""Times of an image and of its labels are compared in their units."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.widgets.dataset.case_request import WHOLE, CaseChoices, PaintedClass, resolve_case
from napari_nnunet.widgets.frame.ready import NotReadyError

SHAPE = (3, 4, 8, 9)


def placed(kind, dtype, unit, step):
    place = {"units": (unit, "mm", "mm", "mm"), "scale": (step, 1, 1, 1), "axis_labels": tuple("tzyx")}
    return kind(np.ones(SHAPE, dtype), name=kind.__name__, **place)


def case_of(image, labels, tmp_path):
    painted = (PaintedClass(0, "background"), PaintedClass(1, "spot"))
    where = Workspace.at(tmp_path), None, None, "Spots", "a", (image,), ("MR",), labels, WHOLE
    return resolve_case(CaseChoices(*where, (1, None, None, None), "", painted))


@pytest.mark.parametrize(("unit", "step"), [("s", 2), ("ms", 2000), ("minute", 1 / 30), ("pixel", 2)])
def test_labels_at_the_times_of_the_image_are_taken_whatever_unit_says_so(tmp_path, unit, step):
    case = case_of(placed(Image, np.float32, "s", 2), placed(Labels, np.uint8, unit, step), tmp_path)
    assert case.labels.shape == SHAPE[1:]


def test_labels_at_other_times_are_refused(tmp_path):
    with pytest.raises(NotReadyError, match=r"differ in their voxel size \(2 × 1 × 1 × 1 and 0\.002 × 1 × 1 × 1\)"):
        case_of(placed(Image, np.float32, "s", 2), placed(Labels, np.uint8, "ms", 2), tmp_path)
