"""What became of objects, and how far a training is, is seen whole in a narrow dock."""

from __future__ import annotations

from pathlib import Path

import pytest
from napari._qt.qt_resources import get_stylesheet

from napari_nnunet.events import Progress
from napari_nnunet.formats.results.summary import CaseScore
from napari_nnunet.widgets.training.details import _share
from napari_nnunet.widgets.training.views import ScoreTable

DOCK = 316  # pixels for a table in a dock that scrolls, in a window of 1280


class _Training:
    """A training as far as the bar looks at it."""

    def __init__(self, stage, progress=None):
        self.stage, self.progress = stage, progress


def test_every_column_of_what_became_of_objects_is_seen_in_a_dock(qtbot):
    table = ScoreTable()
    qtbot.addWidget(table)
    table.setStyleSheet(get_stylesheet("dark"))
    figures = {
        name: {"AP@0.5": 0.004, "found": 1, "missed": 23, "invented": 204, "split": 16, "merged": 12}
        for name in ("0e41d62d5d", "1b3c6536a3")
    }
    table.resize(DOCK, 120)
    table.show()
    table.show_objects([CaseScore(name, Path(), Path(), {"1": {"Dice": 0.1}}) for name in figures], figures)
    qtbot.wait(50)
    assert table.texts()[1] == ["0e41d62d5d", "0.004", "1, 23, 204", "16, 12"]
    assert table.horizontalScrollBar().maximum() == 0
    assert table.columnWidth(0) >= 70


@pytest.mark.parametrize(
    ("stage", "progress", "share"),
    [
        ("Epoch 1 of 4", None, 0.0),
        ("Epoch 1 of 4", Progress(done=5, total=10), 0.125),
        ("Epoch 3 of 4", None, 0.5),
        ("Epoch 4 of 4", Progress(done=12, total=10), 1.0),
        ("Validation", Progress(done=1, total=2), 0.5),
        ("Measuring the training step", None, None),
    ],
)
def test_the_bar_of_a_training_counts_epochs_and_never_runs_back(stage, progress, share):
    assert _share(_Training(stage, progress)) == share
