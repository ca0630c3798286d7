"""Of a model and the one it was continued to, the one that did better on the cases of both is asked."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from napari_nnunet.formats.model.fold import CONTINUED_FILE
from napari_nnunet.jobs.labelling.judge import Judge, best_among


def judge(folder, *, cases, dice, fits=True, folds=(0,)):
    """A model of which each fold validated cases, each with a Dice."""
    for fold in folds:
        validated(folder / f"fold_{fold}" / "validation", [f"c{fold}_{n}" for n in range(cases)], dice)
    return Judge(SimpleNamespace(folder=folder, dataset=SimpleNamespace(file_ending=".png")), tuple(folds), fits)


def validated(home, names, dice):
    home.mkdir(parents=True)
    for name in names:
        (home / f"{name}.png").write_bytes(b"")
    metrics = {"1": {"Dice": dice, "IoU": dice, "FN": 0, "FP": 0, "TN": 0, "TP": 1, "n_pred": 1, "n_ref": 1}}
    per = [{"metrics": metrics, "prediction_file": f"{name}.png", "reference_file": f"{name}.png"} for name in names]
    content = {"foreground_mean": metrics["1"], "mean": metrics, "metric_per_case": per}
    (home / "summary.json").write_text(json.dumps(content))


def continue_from(new, old, before, after, *, fold=0):
    content = {"model": f"/elsewhere/{old.parent.name}/{old.name}", "cases": 1, "dice": {"organ": [before, after]}}
    (new / f"fold_{fold}" / CONTINUED_FILE).write_text(json.dumps(content))


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


def test_all_folds_of_both_decide_together_and_a_third_model_does_not_win_by_that(tmp_path):
    """One fold gained, the other lost: each had removed a model, and the worst of three was left."""
    home = tmp_path / "Dataset001_A"
    old, new = (judge(home / name, cases=2, dice=dice, folds=(0, 1)) for name, dice in (("old", 0.80), ("new", 0.82)))
    other = judge(home / "other", cases=2, dice=0.5, folds=(0, 1))
    continue_from(home / "new", home / "old", 0.80, 0.86, fold=0)
    continue_from(home / "new", home / "old", 0.80, 0.79, fold=1)
    assert best_among([old, new, other]) is new
    continue_from(home / "new", home / "old", 0.80, 0.70, fold=1)
    assert best_among([old, new, other]) is old


def test_a_model_of_which_one_fold_was_continued_is_still_asked_about_the_cases_of_the_others(tmp_path):
    home = tmp_path / "Dataset001_A"
    old = judge(home / "old", cases=2, dice=0.80, folds=(0, 1, 2, 3, 4))
    new = judge(home / "new", cases=2, dice=0.80)
    continue_from(home / "new", home / "old", 0.800, 0.801)
    assert best_among([old, new]) is old
