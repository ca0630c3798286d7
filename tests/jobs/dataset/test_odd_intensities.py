"""Images whose intensities cannot be those of the others are named by the check, and by a model before it segments."""

from __future__ import annotations

import numpy as np
import pytest

from napari_nnunet.engine.image.intensities import usual_range
from napari_nnunet.jobs.dataset.case_checks import CaseFacts
from napari_nnunet.jobs.dataset.contradictions import intensity_problems


def facts(*images):
    return {f"c{i}": CaseFacts((), intensities=(usual_range(image),)) for i, image in enumerate(images)}


def scans(count, scale=1.0, offset=0.0):
    return [np.random.default_rng(i).normal(100, 40, (8, 10, 12)) * scale + offset for i in range(count)]


@pytest.mark.parametrize(
    ("channel", "odd", "named"),
    [
        ("MRI", scans(1, 1 / 400)[0], True),  # scaled to 0..1
        ("MRI", scans(1, 16)[0], True),  # 12 bits among 8
        ("MRI", scans(1, 5)[0], False),  # another scanner
        ("CT", scans(1, 1, 1024)[0], True),  # the offset is missing
        ("CT", scans(1, 1, 30)[0], False),
        ("MRI", np.zeros((8, 10, 12)), False),  # an empty image is named for what it is
    ],
)
def test_a_case_with_intensities_far_from_the_others_is_named(channel, odd, named):
    found = list(intensity_problems([channel], facts(*scans(5), odd)))
    assert [problem.where for problem in found] == (["c5"] if named else [])
    assert all("are far from the usual" in problem.text and channel in problem.text for problem in found)


def test_of_three_cases_none_is_the_odd_one():
    assert not list(intensity_problems(["MRI"], facts(*scans(2), scans(1, 100)[0])))
