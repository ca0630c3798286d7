"""Datasets of which parts were annotated for other classes: joined, said, checked."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import write_nifti
from napari_nnunet.cli import main
from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.dataset.raw_dataset import open_dataset, said
from napari_nnunet.formats.dataset.relabel import ALL_LABELS, bring_labels_back, change_classes
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.trash import TRASH, trashed
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.objects import ObjectScheme

pytestmark = pytest.mark.usefixtures("in_one_process")


def run(*words):
    return main([str(word) for word in words])


def folder_of(root, name, values):
    """Write an image and a mask with these values beside 0 for each case, and return the flags that name them."""
    for i, value in enumerate(values):
        for part in ("images", "masks"):
            (root / name / part).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(i + 10 * len(name))
        mask = np.zeros((6, 16, 18), np.uint8)
        mask[2:4, 4 + i : 12, 5:12] = value
        write_nifti(root / name / "images" / f"{name}{i}.nii.gz", rng.normal(100, 20, mask.shape).astype(np.float32))
        write_nifti(root / name / "masks" / f"{name}{i}.nii.gz", mask)
    return "-i", root / name / "images", "-m", root / name / "masks", "--workspace", root


@pytest.fixture
def joined(tmp_path):
    """Livers, and then spleens drawn as 1 by somebody else."""
    assert run("import_folders", *folder_of(tmp_path, "liver", [1, 1]), "-n", "Organs", "--classes", "1=liver") == 0
    spleens = folder_of(tmp_path, "spleen", [1, 1])
    assert run("import_folders", *spleens, "-d", 1, "--annotated", "spleen") == 0
    return tmp_path


def content(root):
    return json.loads((root / "nnUNet_raw" / "Dataset001_Organs" / "dataset.json").read_text(encoding="utf-8"))


def test_two_datasets_of_other_classes_become_one(joined, capsys):
    found = content(joined)
    assert found["labels"] == {"background": 0, "liver": 1, "spleen": 2}
    assert found["napari_nnunet_annotated"] == {
        "liver0": ["liver"], "liver1": ["liver"], "spleen0": ["spleen"], "spleen1": ["spleen"],
    }  # fmt: skip
    assert found["numTraining"] == 4
    dataset = open_dataset(joined / "nnUNet_raw" / "Dataset001_Organs")
    values = {case.name: set(np.unique(read_labels(case.label)[0]).tolist()) for case in dataset.cases}
    assert values == {"liver0": {0, 1}, "liver1": {0, 1}, "spleen0": {0, 2}, "spleen1": {0, 2}}
    capsys.readouterr()
    assert run("annotated_classes", 1, "--workspace", joined) == 0
    assert capsys.readouterr().out.splitlines() == [
        "liver0: liver", "liver1: liver", "spleen0: spleen", "spleen1: spleen",
    ]  # fmt: skip


def test_cases_of_all_classes_that_come_later_are_complete(joined):
    both = folder_of(joined, "both", [2, 1])
    assert run("import_folders", *both, "-d", 1) == 0
    assert set(content(joined)["napari_nnunet_annotated"]) == {"liver0", "liver1", "spleen0", "spleen1"}


def test_what_was_looked_for_can_be_said_later_and_taken_back(joined, capsys):
    assert run("annotated_classes", 1, "--classes", "liver", "spleen", "--cases", "liver*", "--workspace", joined) == 0
    assert set(content(joined)["napari_nnunet_annotated"]) == {"spleen0", "spleen1"}
    assert run("annotated_classes", 1, "--classes", "all", "--workspace", joined) == 0
    assert content(joined)["napari_nnunet_annotated"] == {}
    before = content(joined)
    capsys.readouterr()
    for words, sentence in (
        (("--classes", "spleen", "--cases", "liver1"), "liver1.nii.gz: it contains 1 (liver), but by"),
        (("--classes", "kidney"), "names the class 'kidney'; the dataset has liver, spleen"),
        (("--classes", "liver", "--cases", "heart*"), "No case is called 'heart*'"),
    ):
        assert run("annotated_classes", 1, *words, "--workspace", joined) == 1
        assert sentence in capsys.readouterr().err
    assert content(joined) == before


def test_labels_of_a_class_that_nobody_looked_for_are_found(joined, capsys):
    path = joined / "nnUNet_raw" / "Dataset001_Organs" / "dataset.json"
    path.write_text(json.dumps({**content(joined), "napari_nnunet_annotated": {"spleen0": ["liver"]}}))
    assert run("verify_dataset_integrity", "-d", 1, "--workspace", joined) == 1
    assert "it contains 2 (spleen), but by 'napari_nnunet_annotated'" in capsys.readouterr().out
    assert run("plan_and_preprocess", "-d", 1, "-c", "3d_fullres", "--workspace", joined) == 0
    capsys.readouterr()
    assert run("train", 1, "3d_fullres", 0, "--epochs", 1, "--workspace", joined) == 1
    assert "spleen0: it contains 2 (spleen)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"background": 0, "liver": 1, "ignore": 2}, "it has an ignore label"),
        ({"background": 0, "whole": [1, 2], "liver": [1]}, "it has regions"),
    ],
)
def test_a_class_that_cannot_be_added_is_refused(joined, capsys, labels, why):
    path = joined / "nnUNet_raw" / "Dataset001_Organs" / "dataset.json"
    changed = {**content(joined), "labels": labels, "regions_class_order": [1, 2], "napari_nnunet_annotated": {}}
    path.write_text(json.dumps(changed))
    assert run("import_folders", *folder_of(joined, "kidney", [1]), "-d", 1, "--annotated", "kidney") == 1
    assert why in capsys.readouterr().err
    assert json.loads(path.read_text(encoding="utf-8")) == changed


def test_the_classes_of_numbered_objects_are_all_looked_for():
    plain = {
        "channel_names": {"0": "c"}, "labels": {"background": 0, "object": 1, "border": 2}, "file_ending": ".png",
    }  # fmt: skip
    scheme = ObjectScheme(kinds={"object": (1, 2)}, width=1.0, unit=1.0)
    with pytest.raises(DatasetError, match="numbered objects"):
        said(DatasetInfo.parse(scheme.write_into(plain)), ["a"], ["a"], ["object"])


def test_what_was_looked_for_follows_classes_that_are_renamed_joined_and_brought_back(joined):
    folder = joined / "nnUNet_raw" / "Dataset001_Organs"
    key = "napari_nnunet_annotated"
    change_classes(folder, {"liver": "hepar"})
    assert content(joined)[key]["liver0"] == ["hepar"]
    assert content(joined)[key]["spleen0"] == ["spleen"]
    before = content(joined)
    with pytest.raises(DatasetError, match="'liver0' names no class"):
        change_classes(folder, {"hepar": "organ", "spleen": "organ"})
    assert content(joined) == before, "nobody looked for all of 'organ' in any case"
    assert run("annotated_classes", 1, "--classes", "hepar", "spleen", "--cases", "liver*", "--workspace", joined) == 0
    change_classes(folder, {"hepar": ""})
    assert content(joined)["labels"] == {"background": 0, "spleen": 1}
    assert content(joined)[key] == {}, "what is left was looked for in every case"
    (entry,) = [one for one in trashed(folder / TRASH) if one.name == ALL_LABELS]
    bring_labels_back(folder, entry)
    assert content(joined)[key] == {"spleen0": ["spleen"], "spleen1": ["spleen"]}
