"""Models of numbered objects return objects, wherever they are asked."""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet import load_model
from napari_nnunet.api import prediction as api
from napari_nnunet.cli.main import main
from napari_nnunet.engine.objects.decode import Rule, decode
from napari_nnunet.errors import ModelError
from napari_nnunet.events import Event, Note, drain
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.objects.find import Decoding, decoding_of, find_objects
from napari_nnunet.jobs.prediction.combined import Combination, Member, predict_combined
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.prediction import PredictFolderRequest, PredictSettings
from napari_nnunet.schema.requests.sharing import ExportSettings
from napari_nnunet.volume import Volume

pytestmark = pytest.mark.usefixtures("in_one_process")

SHAPE = (14, 30, 26)
KEY = "napari_nnunet_objects"
CPU = PredictSettings(device="cpu", backend="torch", precision="float32", threads=1)


def object_model(root: Path, *, kinds: int = 1, folds: tuple[int, ...] = (0,)) -> TrainedModel:
    """A tiny model with random weights that has learnt cores and borders."""
    names = ["cell", "debris"][:kinds]
    labels = {"background": 0}
    for i, name in enumerate(names):
        labels |= {f"{name} core": 2 * i + 1, f"{name} border": 2 * i + 2}
    model = make_model(root, Recipe(labels=labels, folds=folds))
    path = model.folder / "dataset.json"
    objects = {"kinds": {name: [2 * i + 1, 2 * i + 2] for i, name in enumerate(names)}, "width": 1.5, "unit": 1.0}
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), KEY: objects}))
    return load_model(model.folder)


def volume() -> Volume:
    """An image with structures a few voxels wide."""
    return Volume(smooth_image(SHAPE), Geometry(spacing=(1.0, 1.0, 1.0)))


def test_a_prediction_is_objects_by_the_models_rules_and_classes_on_request(tmp_path: Path) -> None:
    model = object_model(tmp_path)
    events: list[object] = []
    result = drain(predict(model, volume(), CPU.replace(probabilities=True)), events.append)
    assert result.probabilities is not None and result.kinds is not None
    core, border = result.probabilities[1], result.probabilities[2]
    np.testing.assert_array_equal(result.labels, decode(core, core + border, Rule(1.5)))
    assert result.labels.dtype == np.uint16
    assert len(result.kinds) == result.labels.max() > 1
    assert set(result.kinds.values()) == {"cell"}
    assert any(isinstance(e, Note) and e.text == f"Found {len(result.kinds)} x cell." for e in events)
    classes = drain(predict(model, volume(), CPU.replace(classes=True)))
    np.testing.assert_array_equal(classes.labels, result.probabilities.argmax(axis=0))
    assert classes.kinds is None


def test_classes_that_are_called_cores_and_borders_without_a_word_of_objects_are_said(tmp_path: Path, capsys) -> None:
    model = object_model(tmp_path)
    path = model.folder / "dataset.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content[KEY]
    path.write_text(json.dumps(content))
    model = load_model(model.folder)
    said: list[str] = []
    result = drain(predict(model, volume(), CPU), lambda event: said.append(getattr(event, "text", "")))
    assert result.kinds is None
    (text,) = [text for text in said if KEY in text]
    assert "'cell core' and 'cell border' are called like cores and borders" in text and "copy that entry" in text
    with pytest.warns(UserWarning, match="classes are returned, and no objects"):
        api.predict(model, volume(), settings=CPU)
    said.clear()
    drain(predict(model, volume(), CPU.replace(classes=True)), lambda event: said.append(getattr(event, "text", "")))
    assert not [text for text in said if KEY in text]  # they were asked for
    (tmp_path / "images").mkdir()
    write_nifti(tmp_path / "images" / "a_0000.nii.gz", volume().array[0])
    words = ("predict_from_modelfolder", "-m", model.folder, "-i", tmp_path / "images", "-o", tmp_path / "o")
    assert main([*map(str, words), "--no_pbar"]) == 0
    assert "lacks 'napari_nnunet_objects'" in capsys.readouterr().err


def test_what_was_chosen_in_the_folds_validation_is_used(tmp_path: Path) -> None:
    model = object_model(tmp_path, folds=(0, 1))
    for fold, seed, smallest in ((0, 0.3, 3), (1, 0.5, 5)):
        rule = {"seed": seed, "inside": 0.4, "smallest": smallest, "smallest_seed": 1}
        text = json.dumps({"rules": {"cell": rule}, "score": 0.5, "cases": 2})
        (model.folder / f"fold_{fold}" / "object_rules.json").write_text(text)
    both, first = decoding_of([(model, (0, 1))]), decoding_of([(model, (0,))])
    assert both is not None and first is not None
    assert both.rules["cell"] == Rule(1.5, pytest.approx(0.4), pytest.approx(0.4), 4, 1)
    assert first.rules["cell"] == Rule(1.5, 0.3, 0.4, 3, 1)


def test_folds_without_rules_of_their_own_are_named(tmp_path: Path) -> None:
    model = object_model(tmp_path, folds=(0, 1))
    events: list[Event] = []
    drain(predict(model, volume(), CPU), events.append)
    (said,) = [e.text for e in events if isinstance(e, Note) and e.level == "warning"]
    name = model.folder.name
    assert f"on validation cases of {name}/fold_0, {name}/fold_1; the usual thresholds of 0.5 are used" in said
    (model.folder / "fold_1" / "object_rules.json").write_text('{"rules": {"cell": {}}}')
    decoding = decoding_of([(model, (0, 1))])
    assert decoding is not None
    assert f"on validation cases of {name}/fold_0; those of the others count" in decoding.doubt
    whole = decoding_of([(model, (1,))])
    assert whole is not None and whole.doubt == ""


@pytest.mark.parametrize("text", ['{"rules": {"cell": {"seed": 7}}}', '{"rules": 3}', "{", "[]"])
def test_rules_that_cannot_be_read_are_named(tmp_path: Path, text: str) -> None:
    model = object_model(tmp_path)
    (model.folder / "fold_0" / "object_rules.json").write_text(text)
    with pytest.raises(ModelError, match=r"object_rules\.json"):
        drain(predict(model, volume(), CPU))


def test_a_canvas_receives_the_objects(tmp_path: Path) -> None:
    model = object_model(tmp_path)
    expected = drain(predict(model, volume(), CPU))
    canvas = np.full(SHAPE, 77, dtype=np.int32)
    result = drain(predict(model, volume(), CPU, canvas=canvas))
    assert result.labels is canvas
    np.testing.assert_array_equal(canvas, expected.labels)


def test_an_ensemble_finds_objects_in_the_mean_probabilities(tmp_path: Path) -> None:
    model = object_model(tmp_path, folds=(0, 1))
    members = tuple(Member(model, CPU.replace(folds=(fold,))) for fold in (0, 1))
    mean = np.zeros((3, *SHAPE), dtype=np.float32)
    result = drain(predict_combined(Combination(members), volume(), probabilities=mean))
    np.testing.assert_array_equal(result.labels, decode(mean[1], mean[1] + mean[2], Rule(1.5)))
    assert result.kinds and len(result.counts) == len(result.kinds) + 1


def test_folders_of_images_become_folders_of_objects(tmp_path: Path) -> None:
    model = object_model(tmp_path / "m")
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in" / "a_0000.nii.gz", volume().array[0])
    request = PredictFolderRequest.like(CPU, source=tmp_path / "in", target=tmp_path / "out", table=True)
    for keep, state in ((False, "done"), (True, "kept")):
        drain(predict_folder(model, request.replace(keep_finished=keep)))
        labels, _ = read_labels(tmp_path / "out" / "a.nii.gz")
        np.testing.assert_array_equal(labels, drain(predict(model, volume(), CPU)).labels)
        (row,) = csv.DictReader((tmp_path / "out" / "table.csv").read_text(encoding="utf-8").splitlines())
        assert (row["state"], row["cell objects"]) == (state, f"{len(np.unique(labels)) - 1}")


def test_the_doubt_is_said_once_in_a_folder(tmp_path: Path) -> None:
    model = object_model(tmp_path)
    (tmp_path / "in").mkdir()
    for i, name in enumerate("ab"):
        write_nifti(tmp_path / "in" / f"{name}_0000.nii.gz", smooth_image(SHAPE, seed=i)[0])
    events: list[Event] = []
    request = PredictFolderRequest.like(CPU, source=tmp_path / "in", target=tmp_path / "out")
    drain(predict_folder(model, request), events.append)
    said = [e.text for e in events if isinstance(e, Note) and "the usual thresholds of 0.5 are used" in e.text]
    assert len(said) == 1


def test_an_object_that_lies_wholly_under_one_of_another_kind_is_not_counted(tmp_path: Path) -> None:
    model = object_model(tmp_path, kinds=2)
    p = np.zeros((5, 24, 40), np.float32)
    p[0] = 1.0
    for core, place, sure in ((1, 2, 0.42), (3, 2, 0.48), (1, 14, 0.9), (3, 26, 0.9)):
        p[core, 6:18, place : place + 10], p[0, 6:18, place : place + 10] = sure, 0.1
    decoding = decoding_of([(model, (0,))])
    assert decoding is not None
    rules = {kind: replace(rule, seed=0.4, inside=0.4) for kind, rule in decoding.rules.items()}
    out = np.zeros(p.shape[1:], np.uint32)
    kinds = find_objects(p, replace(decoding, rules=rules), (1.0, 1.0), out)
    assert kinds == {1: "cell", 2: "debris", 3: "debris"}
    assert [int(out[12, x]) for x in (6, 18, 30)] == [2, 1, 3]


def test_kinds_are_found_one_after_the_other_and_numbered_together(tmp_path: Path) -> None:
    model = object_model(tmp_path, kinds=2)
    decoding = decoding_of([(model, (0,))])
    assert decoding is not None and decoding.heads == {"cell": (1, 2), "debris": (3, 4)}
    p = np.zeros((5, 9, 30), dtype=np.float32)
    p[0] = 1
    for head, (y, x) in {1: (2, 3), 3: (2, 18)}.items():
        p[:, y : y + 5, x : x + 7] = 0
        p[head + 1, y : y + 5, x : x + 7] = 0.9
        p[head : head + 2, y + 2, x + 2 : x + 5] = [[0.9], [0.05]]
    out = np.zeros((9, 30), dtype=np.uint32)
    kinds = find_objects(p, decoding, (1.0, 1.0), out)
    assert kinds == {1: "cell", 2: "debris"}
    assert (out[3, 4], out[3, 19]) == (1, 2)
    assert [(out == n).sum() for n in (1, 2)] == [35, 35]


def test_models_with_borders_of_other_widths_and_rules_are_joined(tmp_path: Path) -> None:
    narrow, wide = object_model(tmp_path / "a"), object_model(tmp_path / "b")
    path = wide.folder / "dataset.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content[KEY] |= {"width": 3.0, "unit": 1.0}
    path.write_text(json.dumps(content))
    for model, seed in ((narrow, 0.3), (wide, 0.5)):
        rule = {"seed": seed, "inside": 0.4, "smallest": 1, "smallest_seed": 1}
        (model.folder / "fold_0" / "object_rules.json").write_text(json.dumps({"rules": {"cell": rule}}))
    found = decoding_of([(narrow, (0,)), (load_model(wide.folder), (0,))])
    assert found is not None
    assert found.rules["cell"].seed == pytest.approx(0.4)
    assert found.rules["cell"].width * found.unit == pytest.approx(3.0)


def test_the_same_objects_are_found_in_finer_voxels(tmp_path: Path) -> None:
    model = object_model(tmp_path)
    decoding = decoding_of([(model, (0,))])
    assert decoding is not None and decoding.unit == 1.0
    coarse = np.zeros((3, 20, 30), dtype=np.float32)
    coarse[0] = 1
    for x in (2, 14):  # two touching objects with borders of two voxels
        coarse[:, 4:16, x : x + 12] = np.array([0, 0.1, 0.9])[:, None, None]
        coarse[:, 6:14, x + 2 : x + 10] = np.array([0, 0.9, 0.1])[:, None, None]
    fine = coarse.repeat(6, axis=1).repeat(6, axis=2)
    first, second = np.zeros((20, 30), np.uint32), np.zeros((120, 180), np.uint32)
    assert find_objects(coarse, decoding, (1.0, 1.0), first) == {1: "cell", 2: "cell"}
    find_objects(fine, decoding, (1 / 6, 1 / 6), second)
    assert ((second != 0) == (first != 0).repeat(6, axis=0).repeat(6, axis=1)).all()  # seeds reach the rims
    assert second.max() == 2
    large = Rule(1.5, smallest=200)
    both = Decoding(decoding.heads, {"cell": large}, 1.0)
    assert not find_objects(coarse, both, (1.0, 1.0), first)
    assert not find_objects(fine, both, (1 / 6, 1 / 6), second)


def test_the_rules_travel_with_an_exported_model(tmp_path: Path) -> None:
    model = object_model(tmp_path)
    rule = {"seed": 0.3, "inside": 0.4, "smallest": 3, "smallest_seed": 2}
    (model.folder / "fold_0" / "object_rules.json").write_text(json.dumps({"rules": {"cell": rule}}))
    archive = tmp_path / "cells.zip"
    drain(export_models([model], archive, ExportSettings()))
    with zipfile.ZipFile(archive) as content:
        names = [name for name in content.namelist() if name.endswith("fold_0/object_rules.json")]
        assert len(names) == 1
        assert json.loads(content.read(names[0]))["rules"]["cell"] == rule
