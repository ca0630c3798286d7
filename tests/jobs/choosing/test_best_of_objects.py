"""Models of objects are compared by the objects they find, and joined into objects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from choices import INFO, RULES, label_folder, member_folder, notes, run_verb, speckled
from helpers import Recipe, make_model, write_nifti
from napari_nnunet.engine.objects.decode import Rule, decode
from napari_nnunet.errors import SettingsError
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.results.inference_information import read_best
from napari_nnunet.formats.results.objects import write_found
from napari_nnunet.formats.results.postprocessing import read_cleaning
from napari_nnunet.formats.results.probabilities import write_probabilities, write_properties
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.best import find_best
from napari_nnunet.jobs.choosing.crossval import accumulate
from napari_nnunet.jobs.choosing.ensemble import ensemble_folders
from napari_nnunet.jobs.choosing.postprocess import determine
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.schema.requests.choosing import AccumulateRequest, EnsembleRequest, FindBestRequest

NAME = "Dataset001_Tiny"
LABELS = {"background": 0, "cell core": 1, "cell border": 2}
SCHEME = {"kinds": {"cell": [1, 2]}, "width": 1.0, "unit": 1.0}


def touching() -> NDArray[np.uint16]:
    """Two boxes that touch along the last axis."""
    objects = np.zeros((6, 18, 36), dtype=np.uint16)
    objects[1:5, 2:16, 2:18] = 1
    objects[1:5, 2:16, 18:34] = 2
    return objects


def classes(objects: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Cores and borders of two voxels in the plane."""
    out = np.where(objects > 0, 2, 0).astype(np.uint8)
    for number in np.unique(objects[objects > 0]):
        out[ndimage.binary_erosion(objects == number, np.ones((1, 5, 5)))] = 1
    return out


def as_one() -> NDArray[np.uint8]:
    """What is nearly right in voxels, but makes one object of two."""
    labels = classes(touching())
    labels[1:5, 4:14, 14:22] = 1
    return labels


def as_two() -> NDArray[np.uint8]:
    """What is worse in voxels, but keeps the two apart."""
    objects = touching()
    thin = np.zeros_like(objects)
    for number in (1, 2):
        thin[ndimage.binary_erosion(objects == number, np.ones((1, 3, 3)))] = number
    return classes(thin)


def validated(root: Path, configuration: str, labels: NDArray[np.uint8], *, found: bool = True) -> Workspace:
    """Write a model that says this of the one case of its fold."""
    model = make_model(root / "nnUNet_results", Recipe(configuration=configuration, labels=LABELS))
    content = {
        **json.loads((model.folder / "dataset.json").read_text(encoding="utf-8")),
        "napari_nnunet_objects": SCHEME,
    }
    (model.folder / "dataset.json").write_text(json.dumps(content))
    base, raw = root / "nnUNet_preprocessed" / NAME, root / "nnUNet_raw" / NAME
    for folder in (base / "gt_segmentations", raw / "objectsTr"):
        folder.mkdir(parents=True, exist_ok=True)
    write_nifti(base / "gt_segmentations" / "c.nii.gz", classes(touching()))
    write_nifti(raw / "objectsTr" / "c.nii.gz", touching())
    plans = base / "nnUNetPlans.json"
    known = json.loads((plans if plans.is_file() else model.folder / "plans.json").read_text(encoding="utf-8"))
    known["configurations"] |= json.loads((model.folder / "plans.json").read_text(encoding="utf-8"))["configurations"]
    plans.write_text(json.dumps(known))
    place = model.folder / "fold_0" / "validation"
    (place / "objects").mkdir(parents=True)
    probabilities = 0.1 + 0.7 * np.eye(3, dtype=np.float32)[labels].transpose(3, 0, 1, 2)
    write_nifti(place / "c.nii.gz", labels)
    write_probabilities(probabilities, place / "c.npz")
    if found:
        objects = decode(probabilities[1], probabilities[1] + probabilities[2], Rule(1.0), (1.0,) * 3)
        write_nifti(place / "objects" / "c.nii.gz", objects.astype(np.uint16))
    return Workspace.at(root)


def test_the_model_that_finds_the_objects_is_the_best_though_its_dice_is_lower(tmp_path: Path) -> None:
    validated(tmp_path, "2d", as_one())
    workspace = validated(tmp_path, "3d_fullres", as_two())
    answer, said = notes(find_best(workspace, FindBestRequest(dataset=NAME, ensembling=False)))
    one, two = answer.scored
    assert one.dice > two.dice
    assert one.objects == pytest.approx(0.05)
    assert two.objects is not None and two.objects > 0.3
    assert [model.configuration for model in answer.best.models] == ["3d_fullres"]
    assert "mean average precision of the objects" in said and "3d_fullres: average precision" in said
    information = json.loads((workspace.results / NAME / "inference_information.json").read_text(encoding="utf-8"))
    assert information["all_results"][one.identifier] == pytest.approx(one.dice)  # nnU-Net's key keeps its meaning
    assert read_best(workspace.results / NAME).precision == pytest.approx(two.objects)
    text = answer.instructions.read_text(encoding="utf-8")
    assert "mean average precision of its objects" in text and "apply_postprocessing" not in text
    assert not read_cleaning(answer.best.postprocessing).steps
    crossval = json.loads((two.folder / "objects.json").read_text(encoding="utf-8"))
    assert (crossval["all"]["found"], crossval["all"]["missed"]) == (2, 0)


def test_ensembles_of_them_are_compared_by_objects_found_in_their_mean(tmp_path: Path) -> None:
    validated(tmp_path, "2d", as_two())
    workspace = validated(tmp_path, "3d_fullres", classes(touching()))
    answer, _ = notes(find_best(workspace, FindBestRequest(dataset=NAME)))
    both = answer.scored[2]
    assert len(both.models) == 2 and both.objects is not None
    found, _ = read_labels(both.folder / "objects" / "c.nii.gz")
    assert set(np.unique(found)) == {0, 1, 2}
    assert read_labels(both.folder / "c.nii.gz")[0].max() == 2  # classes, for nnU-Net's Dice
    command = answer.instructions.read_text(encoding="utf-8")
    assert ("napari-nnunet ensemble" in command) == (len(answer.best.models) > 1)


def test_where_objects_were_not_looked_for_the_dice_decides_and_that_is_said(tmp_path: Path) -> None:
    validated(tmp_path, "2d", as_one(), found=False)
    workspace = validated(tmp_path, "3d_fullres", as_two())
    answer, said = notes(find_best(workspace, FindBestRequest(dataset=NAME, ensembling=False)))
    assert [model.configuration for model in answer.best.models] == ["2d"]
    assert "validated without looking for the objects of 1 of 1 cases (c)" in said
    assert "Compared by the Dice of cores and borders, not by the objects" in said
    assert answer.best.precision is None


def test_cases_with_more_objects_than_their_format_has_numbers_count(tmp_path: Path) -> None:
    """BMP numbers 254 objects; a bad model finds 400 where three are."""
    recipe = Recipe(configuration="2d", labels=LABELS, reader="NaturalImage2DIO", file_ending=".bmp")
    model = make_model(tmp_path / "nnUNet_results", recipe)
    content = {
        **json.loads((model.folder / "dataset.json").read_text(encoding="utf-8")),
        "napari_nnunet_objects": SCHEME,
    }
    (model.folder / "dataset.json").write_text(json.dumps(content))
    plane, raw = Geometry(spacing=(1.0, 1.0)), tmp_path / "nnUNet_raw" / recipe.name
    objects = np.repeat(np.arange(4, dtype=np.uint8)[:, None], 100, axis=1)
    place = model.folder / "fold_0" / "validation"
    for folder, labels in ((raw / "labelsTr", objects > 0), (raw / "objectsTr", objects), (place, objects > 0)):
        folder.mkdir(parents=True)
        write_labels(labels.astype(np.uint8), plane, folder / "c.bmp")
    (place / "objects").mkdir()
    invented = np.arange(1, 401, dtype=np.uint32).reshape(4, 100)
    scheme = ObjectScheme.model_validate(SCHEME)
    found = write_found(invented, {}, scheme, plane, place / "objects" / "c.bmp", "NaturalImage2DIO")
    assert found.suffix == ".tif"
    request = AccumulateRequest(dataset=recipe.name, configuration="2d")
    collected, said = notes(accumulate(Workspace.at(tmp_path), request))
    assert "without looking" not in said and collected.objects == 0
    scores = json.loads((collected.folder / "objects.json").read_text(encoding="utf-8"))
    assert (scores["all"]["references"], scores["all"]["predictions"]) == (3, 400)


def test_accumulated_folds_have_their_objects_and_say_how_good_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = validated(tmp_path, "3d_fullres", as_two())
    found = drain(accumulate(workspace, AccumulateRequest(dataset=NAME, configuration="3d_fullres")))
    assert found.objects is not None and (found.folder / "objects" / "c.nii.gz").is_file()
    words = ("accumulate_crossval_results", "1", "-c", "3d_fullres", "-o", tmp_path / "o", "--workspace", tmp_path)
    assert run_verb(*words) == 0
    assert f"Mean average precision of their objects: {found.objects:.4f}" in capsys.readouterr().out


def test_the_largest_part_alone_is_never_kept_of_what_counts_objects(tmp_path: Path) -> None:
    truth, wrong = speckled()
    label_folder(tmp_path / "r", {"a": truth})
    label_folder(tmp_path / "p", {"a": wrong})
    usual = drain(determine(tmp_path / "p", tmp_path / "r", RULES, INFO.labels))
    assert usual.cleaning.steps  # so that there is something to leave out
    found = drain(determine(tmp_path / "p", tmp_path / "r", RULES, INFO.labels, untouched=(1, 2)))
    assert not found.cleaning.steps
    assert found.after.dice == found.before.dice


def member(folder: Path, labels: NDArray[np.uint8], *, seed: float | None = 0.6) -> Path:
    """Write what predict --save_probabilities leaves of one case."""
    member_folder(folder, ("c",))
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    (folder / "dataset.json").write_text(json.dumps({**content, "labels": LABELS, "napari_nnunet_objects": SCHEME}))
    write_probabilities(0.1 + 0.7 * np.eye(3, dtype=np.float32)[labels].transpose(3, 0, 1, 2), folder / "c.npz")
    grid = {"spacing": (1.0,) * 3, "origin": (0.0,) * 3, "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)}
    write_properties({"spacing": [1.0] * 3, "sitk_stuff": grid}, folder / "c.pkl")
    if seed is not None:
        rule = {"seed": seed, "inside": 0.5, "smallest": 1, "smallest_seed": 1}
        (folder / "object_rules.json").write_text(json.dumps({"rules": {"cell": rule}, "score": 0.5, "cases": 3}))
    return folder


def test_joined_folders_are_numbered_objects_by_the_mean_of_their_rules(tmp_path: Path) -> None:
    folders = member(tmp_path / "a", as_two(), seed=0.4), member(tmp_path / "b", classes(touching()), seed=0.8)
    request = EnsembleRequest(sources=folders, target=tmp_path / "o", probabilities=True)
    _, said = notes(ensemble_folders(request))
    mean = np.load(tmp_path / "o" / "c.npz")["probabilities"]
    expected = decode(mean[1], mean[1] + mean[2], Rule(1.0, 0.6, 0.5), (1.0,) * 3)
    np.testing.assert_array_equal(read_labels(tmp_path / "o" / "c.nii.gz")[0], expected)
    assert expected.max() == 2 and "missing" not in said
    joined = json.loads((tmp_path / "o" / "object_rules.json").read_text(encoding="utf-8"))
    assert joined["rules"]["cell"]["seed"] == pytest.approx(0.6)


def test_one_folder_of_probabilities_is_decoded_and_of_classes_refused(tmp_path: Path) -> None:
    alone = member(tmp_path / "a", as_two())  # as nnU-Net itself leaves it
    (alone / "object_rules.json").unlink(missing_ok=True)
    assert run_verb("ensemble", "-i", alone, "-o", tmp_path / "o") == 0
    assert read_labels(tmp_path / "o" / "c.nii.gz")[0].max() == 2
    request = EnsembleRequest(sources=(alone,), target=tmp_path / "c", classes=True)
    with pytest.raises(SettingsError, match="at least two members; 1 folder was given"):
        drain(ensemble_folders(request))


def test_classes_are_joined_on_request(tmp_path: Path) -> None:
    folders = member(tmp_path / "a", as_two()), member(tmp_path / "b", classes(touching()))
    words = ("ensemble", "-i", *folders, "-o", tmp_path / "o", "--classes", "--save_npz")
    assert run_verb(*words) == 0
    mean = np.load(tmp_path / "o" / "c.npz")["probabilities"]
    np.testing.assert_array_equal(read_labels(tmp_path / "o" / "c.nii.gz")[0], mean.argmax(axis=0))


@pytest.mark.parametrize(("seeds", "words"), [((0.7, None), "those of the others"), ((None, None), "usual thresholds")])
def test_rules_that_are_missing_are_said(tmp_path: Path, seeds: tuple[float | None, ...], words: str) -> None:
    folders = tuple(member(tmp_path / f"m{i}", as_two(), seed=seed) for i, seed in enumerate(seeds))
    _, said = notes(ensemble_folders(EnsembleRequest(sources=folders, target=tmp_path / "o")))
    assert "object_rules.json" in said and words in said
    assert read_labels(tmp_path / "o" / "c.nii.gz")[0].max() == 2
