"""A case of two folders is opened as it was compared: a file that stores its voxels in another order is turned."""

from __future__ import annotations

import numpy as np
import pytest
from docks import open_dock, press, wait_until_idle

from helpers import write_nifti
from turned_files import mirror, permute, shift


@pytest.fixture
def compare(viewer, qtbot):
    dock = open_dock(viewer, "Compare")
    yield dock
    wait_until_idle(qtbot, dock)


@pytest.fixture
def folders(tmp_path):
    labels = np.zeros((6, 10, 14), np.uint8)
    labels[1:4, 2:6, 3:6] = 1
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            write_nifti(tmp_path / folder / f"{name}.nii.gz", labels, (2, 1, 1))
    mirror(tmp_path / "two" / "a.nii.gz")
    permute(tmp_path / "two" / "b.nii.gz")
    return tmp_path / "one", tmp_path / "two"


@pytest.mark.parametrize("objects", [False, True])
def test_a_case_is_opened_as_it_was_compared(viewer, compare, folders, qtbot, objects):
    compare.form.tabs.setCurrentIndex(1)
    for name, folder in zip(("first", "second"), folders, strict=True):
        compare.form.folders.widgets[name].value = folder
    compare.form.objects_box.value = objects
    qtbot.waitUntil(lambda: "Will compare" in compare.summary.text())
    press(qtbot, compare)
    table = compare.objects if objects else compare
    assert [row[1] for row in table.table.texts()[1:]] == (["1.000"] * 2 if objects else ["1.0000"] * 2)
    for row in range(2):
        table._open_case(row)
        wait_until_idle(qtbot, compare)
        first, second, marked = list(viewer.layers)[-3:]
        np.testing.assert_array_equal(first.data, second.data)
        assert np.allclose(first.scale, second.scale) and np.allclose(
            first.data_to_world((1, 2, 3)), second.data_to_world((1, 2, 3))
        )
        assert objects or not marked.data.any()
    shift(folders[1] / "a.nii.gz")
    before = len(viewer.layers)
    table._open_case(0)
    wait_until_idle(qtbot, compare)
    assert "show different places" in compare.panel.status.text()
    assert len(viewer.layers) == before
