"""What is doubtful about a comparison with the model that was continued stands below it."""

from __future__ import annotations

import json
from types import SimpleNamespace

from napari_nnunet.formats.model.fold import CONTINUED_FILE
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.widgets.training.details import TrainingDetails, Validated, _before_and_after


def test_a_comparison_says_what_is_doubtful_about_it(qtbot, tmp_path):
    details = TrainingDetails()
    qtbot.addWidget(details)
    for note in ("Labels may have changed.", ""):
        content = {"model": "m", "dice": {"organ": [0.5, 0.75]}, **({"note": note} if note else {})}
        (tmp_path / CONTINUED_FILE).write_text(json.dumps(content))
        details._scores_read(Validated(Summary({}, {}, ()), {}, {}, *_before_and_after(tmp_path)))
        assert details.compared.texts()[1:] == [["organ", "0.5000", "0.7500"]]
        assert details.doubt.text() == note and details.doubt.isVisibleTo(details) == bool(note)


def test_scores_are_read_again_when_a_training_has_ended_for_its_comparison_comes_last(qtbot, tmp_path, monkeypatch):
    details, read = TrainingDetails(), []
    qtbot.addWidget(details)
    monkeypatch.setattr(details._reading, "start", lambda job, **_: read.append(job))
    for alive in (True, True, False, False):
        details._show_scores(SimpleNamespace(folder=SimpleNamespace(path=tmp_path), scored=1.0, alive=alive))
    assert len(read) == 2
