"""Open layers of a dataset's cases keep their meaning when the dataset is edited here."""

from __future__ import annotations

import json

import numpy as np
import pytest
from napari.layers import Labels

from napari_nnunet.widgets.files.origins import Edited, follow_edit
from napari_nnunet.widgets.frame.layers import ORIGIN, VALUES


@pytest.mark.parametrize("saved", [{}, {VALUES: {0: 0, 1: 1}}])
def test_classes_that_are_joined_are_joined_in_strokes_of_values_that_were_not_saved_before(tmp_path, saved):
    """The values of an earlier save were taken for all there are."""
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1, "c": 2}}))
    layer = Labels(np.arange(4, dtype=np.uint8)[None], metadata={ORIGIN: {"folder": str(tmp_path)}, **saved})
    follow_edit([layer], Edited(tmp_path, tmp_path, {"b": "a"}, {0: 0, 1: 1, 2: 1, 3: 2}))
    assert layer.metadata[VALUES] == {0: 0, 1: 1, 2: 1, 3: 2}
