"""Masks and labels as people have them are taken rightly, or refused with the remedy."""

from __future__ import annotations

import json

import numpy as np
import pytest

from as_people_have_them import PLAIN, model_in, same_voxels, voxels
from napari_nnunet.errors import NnunetError
from napari_nnunet.widgets.files.reader import get_reader
from napari_nnunet.widgets.files.writer import write_labels_layer

pytestmark = pytest.mark.real


def _imported(say, folder, workspace, *more):
    return say(
        "import_folders", "-i", folder / "images", "-m", folder / "masks", "-n", "New", "--workspace", workspace, *more
    )


def _raw(workspace):
    return workspace / "nnUNet_raw" / "Dataset001_New"


def test_masks_that_are_stored_mirrored_are_turned_onto_their_images(kind, say, tmp_path):
    folder = kind("mask_stored_mirrored")
    said = _imported(say, folder, tmp_path / "ws")
    assert said.status == 0 and said.has("reoriented onto their images: leftright, updown.")
    for expected in (folder / "expected").iterdir():
        assert same_voxels(_raw(tmp_path / "ws") / "labelsTr" / expected.name, expected), expected.name


def _layer(path):
    return get_reader(str(path))(str(path))


def test_numbers_of_regions_beyond_16_bits_keep_their_values(kind, tmp_path):
    folder = kind("labels_beyond_uint16")
    wanted = [0, 997, 70001, 312782546]
    for path in sorted((folder / "objects").glob("case_*")):
        ((data, keywords, layer),) = _layer(path)
        assert layer == "labels" and np.unique(data).tolist() == wanted, path.name
        for ending in (".nii.gz", ".nii", ".nrrd", ".mha", ".tif"):
            target = tmp_path / f"saved{ending}"
            write_labels_layer(str(target), data, keywords)
            assert np.unique(_layer(target)[0][0]).tolist() == wanted, ending
    with pytest.raises(NnunetError, match="312782546"):
        write_labels_layer(str(tmp_path / "saved.png"), data[0], {})
    opened = _layer(folder / "nnUNet_raw" / "Dataset002_Atlas")
    assert [int(np.max(data)) for data, _, layer in opened if layer == "labels"] == [wanted[-1]]


def test_fractions_are_named_and_not_rounded(kind, say, tmp_path):
    folder = kind("masks_with_fractions")
    evaluated = say(
        "evaluate_simple", folder / "references", folder / "masks", "-l", 1, "-o", tmp_path / "summary.json"
    )
    assert evaluated.status == 1 and not (tmp_path / "summary.json").exists()
    assert evaluated.has("probabilities.nii.gz has the value 0.7", "smoothed.nii.gz has the value 0.015625")
    assert "harmless" not in evaluated.text
    imported = _imported(say, folder, tmp_path / "ws")
    assert imported.status == 1 and imported.has("2 of 3 masks", "not whole numbers", "--threshold 0.5")
    assert not _raw(tmp_path / "ws").exists()
    for name in ("probabilities", "smoothed"):
        (folder / "masks" / f"{name}.nii.gz").unlink()
        (folder / "references" / f"{name}.nii.gz").unlink()
    output = tmp_path / "harmless.json"
    assert say("evaluate_simple", folder / "references", folder / "masks", "-l", 1, "-o", output).status == 0
    assert json.loads(output.read_text(encoding="utf-8"))["foreground_mean"]["Dice"] == 1


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("jpeg", ("83 values around 0 and 255", "JPEG", "--threshold 128")),
        ("smoothed", ("250 values around 0 and 255", "smoothed", "--threshold 128")),
        ("objects", ("number their objects", "up to 80 values", "--map nonzero=object")),
    ],
)
def test_no_hundred_classes_come_from_masks_that_are_no_classes(part, words, kind, say, tmp_path):
    folder = kind("masks_that_are_not_classes") / part
    said = _imported(say, folder, tmp_path / "ws")
    assert said.status == 1 and said.has(*words) and not _raw(tmp_path / "ws").exists()
    again = _imported(say, folder, tmp_path / "ws", *words[-1].split())
    labels = json.loads((_raw(tmp_path / "ws") / "dataset.json").read_text(encoding="utf-8"))["labels"]
    assert again.status == 0 and len(labels) == 2


def test_masks_that_are_plain_to_a_person_are_imported_or_asked_about(kind, say, tmp_path):
    folder = kind("masks_import_refused")
    for part, answer in (
        ("palette", ()),
        ("grey", ()),
        ("minus", ("--ignore=-1",)),
        ("colours", ("--map", "#0080ff=class_1", "#ff0000=class_2")),
    ):
        workspace = tmp_path / part
        if answer:
            asked = _imported(say, folder / part, workspace)
            assert asked.status == 1 and asked.has("If that is right, import with: ", answer[-1]), part
            assert asked.has("If every coloured piece is an object of its own: --objects") is (part == "colours")
        assert _imported(say, folder / part, workspace, *answer).status == 0, part
        content = json.loads((_raw(workspace) / "dataset.json").read_text(encoding="utf-8"))
        classes = ["background", "class_1", "class_2", *(["ignore"] if part == "minus" else [])]
        assert content["labels"] == {name: value for value, name in enumerate(classes)}, part
        found = {int(v) for path in (_raw(workspace) / "labelsTr").glob("case_*") for v in np.unique(voxels(path))}
        assert found == set(content["labels"].values()), part


def test_a_voxel_size_beside_a_stack_goes_with_it(kind, say, tmp_path):
    folder = kind("masks_import_refused") / "sidecar"
    assert _imported(say, folder, tmp_path / "ws").status == 0
    beside = sorted(_raw(tmp_path / "ws").glob("*/*.json"))
    assert len(beside) == 4 and all(
        json.loads(path.read_text(encoding="utf-8"))["spacing"] == [3.0, 0.5, 0.5] for path in beside
    )


def test_predictions_on_another_grid_are_turned_or_refused(kind, say, tmp_path):
    folder = kind("evaluate_other_grid")

    def dice(part):
        output = tmp_path / f"{part}.json"
        pair = folder / part / "references", folder / part / "predictions"
        said = say("evaluate_simple", *pair, "-l", 1, 2, "-o", output)
        return said, json.loads(output.read_text(encoding="utf-8"))["foreground_mean"][
            "Dice"
        ] if output.exists() else None

    assert dice("same")[1] == dice("mirrored")[1] == 1
    said, none = dice("shifted")
    assert said.status == 1 and none is None and said.has("shifted", "50 mm apart", "--ignore-geometry")
    folders = folder / "shifted" / "references", folder / "shifted" / "predictions"
    assert say("compare", *folders).has("50 mm apart", "--ignore-geometry")
    assert say("compare", *folders, "--ignore-geometry").status == 0


@pytest.mark.parametrize(("dataset", "value"), [(11, 255), (111, -1)])
def test_values_that_dataset_json_lacks_end_before_training(dataset, value, kind, say):
    folder = kind("unlisted_values_without_verify")
    where = "--workspace", folder
    said = say("plan_and_preprocess", "-d", dataset, "-c", "3d_fullres", *where)
    assert said.status == 1 and said.has(f"case_1.nii.gz: it contains {value} (864 voxels)", "dataset.json")
    trained = say("train", dataset, "3d_fullres", "all", "--epochs", 1, "-device", "cpu", *where)
    assert trained.status == 1 and trained.has("is not planned") and not list(folder.glob("nnUNet_results/Dataset*"))


def test_channels_from_other_places_are_named_and_turned_ones_turned(kind, say, tmp_path):
    folder = kind("channels_apart")
    where = "--workspace", folder
    apart = "shifted_0001.nii.gz", "41.8 mm apart"
    checked = say("verify_dataset_integrity", "-d", 6, *where)
    assert checked.status == 1 and checked.has(*apart, "turned_0001.nii.gz", "mirrored along x")
    preprocessed = say("plan_and_preprocess", "-d", 6, "-c", "3d_fullres", *where)
    assert preprocessed.status == 1 and preprocessed.has(*apart)
    model = model_in(folder / "nnUNet_results")
    said = say("predict_from_modelfolder", "-i", folder / "images", "-o", tmp_path / "out", "-m", model, *PLAIN)
    assert said.status == 1 and said.has(*apart, "turned: turned_0001.nii.gz is stored in another orientation")
    for text in (checked.text, preprocessed.text, said.text):
        assert "together_" not in text
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["together.nii.gz", "turned.nii.gz"]
    straight = folder / "images" / "turned_0001.nii.gz"
    straight.write_bytes((folder / "images" / "turned_0000.nii.gz").read_bytes())
    say("predict_from_modelfolder", "-i", folder / "images", "-o", tmp_path / "again", "-m", model, *PLAIN)
    assert same_voxels(tmp_path / "out" / "turned.nii.gz", tmp_path / "again" / "turned.nii.gz")
