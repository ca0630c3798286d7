"""A postprocessing is found, written, read and applied."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from choices import (
    DATASET_JSON,
    INFO,
    RULES,
    SHAPE,
    label_folder,
    run_verb,
    speckled,
)
from helpers import smooth_image
from napari_nnunet.engine.choosing import components
from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.results.postprocessing import read_cleaning, write_cleaning
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.jobs.choosing.evaluate import EvaluationFiles, Rules, evaluate_folder
from napari_nnunet.jobs.choosing.postprocess import apply_cleaning, determine, determine_postprocessing
from napari_nnunet.schema.cleaning import Cleaning, Step
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import DeterminePostprocessingRequest
from test_grid import turned_copy


def test_a_postprocessing_survives_writing_and_nothing_else_is_read(tmp_path):
    cleaning = Cleaning.of([[1, 2], 1, (1, 2), [(1, 2), 3]])
    write_cleaning(tmp_path / "p.pkl", cleaning)
    assert read_cleaning(tmp_path / "p.pkl") == cleaning
    assert b"remove_all_but_largest_component_from_segmentation" in (tmp_path / "p.pkl").read_bytes()

    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(([Harmful()], [{}])))
    with pytest.raises(DatasetError, match="refused"):
        read_cleaning(tmp_path / "bad.pkl")
    assert not (tmp_path / "touched").exists()
    for content, words in (
        ([1, 2], "not a pair"),
        (([], [{"labels_or_regions": 1}]), "0 functions"),
        ((["x"], [{"labels_or_regions": 1}]), "other than"),
    ):
        (tmp_path / "bad.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(DatasetError, match=words):
            read_cleaning(tmp_path / "bad.pkl")
    (tmp_path / "bad.json").write_text('{"postprocessing_fns": ["rm"], "postprocessing_kwargs": [{}]}')
    with pytest.raises(DatasetError, match="asks for rm"):
        read_cleaning(tmp_path / "bad.json")


def test_postprocessing_is_found_applied_and_does_what_it_says(tmp_path, capsys):
    truth, wrong = speckled()
    label_folder(tmp_path / "ref", {"a": truth, "b": truth})
    label_folder(tmp_path / "pred", {"a": wrong, "b": wrong})
    found = drain(determine(tmp_path / "pred", tmp_path / "ref", RULES, INFO.labels, keep_cleaned=False))
    assert found.cleaning == Cleaning.of([1])  # the foreground as a whole would lose label 2
    assert not (tmp_path / "pred" / "postprocessed").exists()
    words = ("-i", tmp_path / "pred", "-o", tmp_path / "out", "-pp_pkl_file", tmp_path / "pred" / "postprocessing.pkl")
    assert run_verb("apply_postprocessing", *words) == 0
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.nii.gz")[0], truth)
    assert run_verb("determine_postprocessing", "-i", tmp_path / "pred", "-ref", tmp_path / "ref") == 0
    assert "the largest part of organ" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="same folder"):
        drain(apply_cleaning(tmp_path / "pred", tmp_path / "pred", found.cleaning, RULES))


def test_a_summary_of_earlier_segmentations_is_written_anew(tmp_path):
    truth, wrong = speckled()
    label_folder(tmp_path / "ref", {"a": truth})
    label_folder(tmp_path / "pred", {"a": truth})
    summary = tmp_path / "pred" / "summary.json"
    drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES))
    drain(determine(tmp_path / "pred", tmp_path / "ref", RULES, INFO.labels, keep_cleaned=False))
    before = summary.stat().st_mtime_ns
    drain(determine(tmp_path / "pred", tmp_path / "ref", RULES, INFO.labels, keep_cleaned=False))
    assert summary.stat().st_mtime_ns == before
    label_folder(tmp_path / "pred", {"a": wrong})
    found = drain(determine(tmp_path / "pred", tmp_path / "ref", RULES, INFO.labels, keep_cleaned=False))
    assert Summary.read(summary).foreground["Dice"] == pytest.approx(found.before.foreground["Dice"])
    assert found.before.foreground["Dice"] < 1


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)], ids=["mirrored", "permuted"])
def test_references_stored_another_way_find_the_same_postprocessing(tmp_path, axes):
    truth, wrong = speckled()
    place = Geometry(spacing=(2.0, 0.5, 1.0), origin=(3.0, 4.0, 5.0), direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    for name in ("ref", "pred", "away"):
        (tmp_path / name).mkdir()
    for case in "ab":
        write_labels(wrong, place, tmp_path / "pred" / f"{case}.nii.gz")
        write_labels(*turned_copy(truth, place, axes, (True, False, True)), tmp_path / "ref" / f"{case}.nii.gz")
        moved = place.model_copy(update={"origin": (53.0, 4.0, 5.0)})
        write_labels(truth, moved, tmp_path / "away" / f"{case}.nii.gz")
    (tmp_path / "pred" / "dataset.json").write_text(json.dumps(DATASET_JSON))
    found = drain(determine(tmp_path / "pred", tmp_path / "ref", RULES, INFO.labels, keep_cleaned=False))
    assert found.cleaning == Cleaning.of([1])
    assert found.after.dice == 1.0
    asked = DeterminePostprocessingRequest(source=tmp_path / "pred", reference=tmp_path / "away")
    with pytest.raises(DatasetError, match=r"places 50 mm apart.*--ignore-geometry"):
        drain(determine_postprocessing(asked))
    found = drain(determine_postprocessing(asked.replace(ignore_geometry=True)))
    assert found.cleaning == Cleaning.of([1])


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "spot": [3]}, [1, 2, 3]),
        ({"background": 0, "a": 1, "b": 2, "c": 3, "nowhere": 4}, None),
    ],
    ids=["regions", "labels"],
)
def test_scores_predicted_by_the_search_are_those_of_the_files_it_writes(tmp_path, monkeypatch, labels, order):
    monkeypatch.setattr(components, "_SMALL", 0)  # as large volumes are looked at
    rng = np.random.default_rng(0)
    info = DatasetInfo.parse({**DATASET_JSON, "labels": labels, "regions_class_order": order})
    truth = {f"c{i}": np.digitize(smooth_image((10, 20, 20), seed=i)[0], [90, 120, 160]) for i in range(3)}
    if order is None:
        truth = dict.fromkeys(truth, speckled()[0])
    label_folder(tmp_path / "ref", {name: array.astype(np.uint8) for name, array in truth.items()})
    wrong = {}
    for name, array in truth.items():
        wrong[name] = array.astype(np.uint8)
        wrong[name][(rng.random(array.shape) > 0.97) & (array == 0)] = rng.integers(1, 4)
    label_folder(tmp_path / "pred", wrong)
    rules = Rules.of(info)
    found = drain(determine(tmp_path / "pred", tmp_path / "ref", rules, info.labels))
    again = drain(
        evaluate_folder(tmp_path / "ref", tmp_path / "pred" / "postprocessed", rules, EvaluationFiles(tmp_path / "s"))
    )
    for label, values in found.after.mean.items():
        np.testing.assert_equal(again.summary.mean[label], values)
    assert found.cleaning.steps


def test_a_postprocessing_may_write_a_value_that_the_file_type_does_not_hold(tmp_path):
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[1:4, 1:4, 1:4] = 1
    labels[5, 8, 8] = 1
    label_folder(tmp_path / "pred", {"a": labels})
    steps = Cleaning(steps=(Step(target=1, background=300),))
    drain(apply_cleaning(tmp_path / "pred", tmp_path / "out", steps, RULES))
    cleaned = read_labels(tmp_path / "out" / "a.nii.gz")[0]
    assert cleaned[5, 8, 8] == 300 and (cleaned == 1).sum() == 27
