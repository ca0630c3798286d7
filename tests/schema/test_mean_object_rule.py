"""The rules of several folds as one."""

from __future__ import annotations

import pytest

from napari_nnunet.schema.objects import ObjectRule


@pytest.mark.parametrize(
    ("folds", "split", "neck"),
    [
        ([{}, {}, {"neck": 0.6}], None, None),
        ([{}, {"neck": 0.4}, {"neck": 0.6}], None, 0.5),
        ([{"split": 1.0}, {"split": 2.0}, {"neck": 0.6}], 1.5, None),
        ([{"split": 1.0}, {"neck": 0.6}], None, 0.6),
        ([{"split": 1.0}, {"neck": 0.4}, {}], None, 0.4),
        ([{"split": 9.0, "neck": 0.4}, {"split": 1.0}], None, 0.4),
    ],
    ids=["few cut", "by shares", "by lengths", "as many", "two ways, one not", "a share goes first"],
)
def test_necks_are_cut_as_most_folds_cut_them(
    folds: list[dict[str, float]], split: float | None, neck: float | None
) -> None:
    rule = ObjectRule.mean([ObjectRule.model_validate(fold) for fold in folds])
    assert (rule.split, rule.neck) == (split, pytest.approx(neck) if neck else neck)
