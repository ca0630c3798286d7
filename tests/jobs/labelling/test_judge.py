"""Of a model and the one it was continued to, the one that did better on the cases of both is asked."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from napari_nnunet.formats.model.fold import CONTINUED_FILE
from napari_nnunet.jobs.labelling.judge import Judge, best_among


def judge(folder, *, cases, dice, fits=True):
    """A model whose fold 0 validated cases, each with a Dice."""
    home = folder / "fold_0" / "validation"
    home.mkdir(parents=True)
    names = [f"c{n}" for n in range(cases)]
    for name in names:
        (home / f"{name}.png").write_bytes(b"")
    metrics = {"1": {"Dice": dice, "IoU": dice, "FN": 0, "FP": 0, "TN": 0, "TP": 1, "n_pred": 1, "n_ref": 1}}
    per = [{"metrics": metrics, "prediction_file": f"{name}.png", "reference_file": f"{name}.png"} for name in names]
    content = {"foreground_mean": metrics["1"], "mean": metrics, "metric_per_case": per}
    (home / "summary.json").write_text(json.dumps(content))
    return Judge(SimpleNamespace(folder=folder, dataset=SimpleNamespace(file_ending=".png")), (0,), fits)


def continue_from(new, old, before, after):
    content = {"model": f"/elsewhere/{old.parent.name}/{old.name}", "cases": 1, "dice": {"organ": [before, after]}}
    (new / "fold_0" / CONTINUED_FILE).write_text(json.dumps(content))


@pytest.fixture
def pair(tmp_path):
    """A model that was measured on strokes, and the one it was continued to, on whole labels."""
    old, new = tmp_path / "Dataset001_A" / "old", tmp_path / "Dataset001_A" / "new"
    return judge(old, cases=1, dice=0.77), judge(new, cases=1, dice=0.68)


def test_an_improved_model_is_asked_though_its_own_labels_were_harder(pair):
    old, new = pair
    assert best_among(pair) is old  # nothing is known of both
    continue_from(new.model.folder, old.model.folder, 0.66, 0.68)
    assert best_among(pair) is new


def test_a_model_that_became_worse_is_not_asked_whatever_it_says_of_itself(tmp_path):
    old, new = tmp_path / "Dataset001_A" / "old", tmp_path / "Dataset001_A" / "new"
    found = [judge(old, cases=1, dice=0.6), judge(new, cases=1, dice=0.9)]
    assert best_among(found) is found[1]
    continue_from(new, old, 0.95, 0.9)
    assert best_among(found) is found[0]


def test_todays_classes_come_first(tmp_path):
    old, new = tmp_path / "Dataset001_A" / "old", tmp_path / "Dataset001_A" / "new"
    found = [judge(old, cases=3, dice=0.9, fits=False), judge(new, cases=1, dice=0.5)]
    continue_from(new, old, 0.9, 0.5)
    assert best_among(found) is found[1]


def test_a_model_of_another_dataset_with_the_same_name_is_not_meant(pair, tmp_path):
    old, new = pair
    continue_from(new.model.folder, tmp_path / "Dataset002_B" / old.model.folder.name, 0.1, 0.9)
    assert best_among(pair) is old
