"""The verbs from raw data to preprocessed data, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest

from helpers import DATASET, dataset_json, make_dataset
from napari_nnunet.cli import main
from napari_nnunet.events import from_json
from napari_nnunet.formats.dataset import raw_writer


@pytest.fixture
def raw(tmp_path):
    return make_dataset(tmp_path, cases=5)


def run(*words):
    return main([str(word) for word in words])


def test_the_documented_commands_of_nnunet(raw, tmp_path, capsys):
    events = tmp_path / "events.jsonl"
    assert run("plan_and_preprocess", "-d", 5, "--verify_dataset_integrity", "-npfp", 2, "-np", 2, 2, 2,
               "--workspace", tmp_path, "--events", events) == 0  # fmt: skip
    base = tmp_path / "nnUNet_preprocessed" / DATASET
    printed = capsys.readouterr().out.split()
    assert printed == [str(base / name) for name in ("nnUNetPlans.json", "nnUNetPlans_2d", "nnUNetPlans_3d_fullres")]
    names = [
        event.name for event in map(from_json, events.read_text(encoding="utf-8").splitlines()) if event.kind == "stage"
    ]
    assert names == [f"{verb} {DATASET}" for verb in ("Checking", "Measuring", "Planning", "Preprocessing")]
    assert run("plan-experiment", "-d", DATASET, "-pl", "nnUNetPlannerResEncM", "--workspace", tmp_path) == 0
    assert run("preprocess", "-d", 5, "-p", "nnUNetResEncUNetMPlans", "-c", "2d", "--workspace", tmp_path) == 0
    assert run("extract_fingerprint", "-d", 5, "--workspace", tmp_path) == 0
    make_dataset(tmp_path, name="Dataset006_Other")
    assert run("move_plans_between_datasets", "-s", 5, "-t", 6, "-sp", "nnUNetPlans", "-tp", "moved",
               "--workspace", tmp_path) == 0  # fmt: skip
    assert run("preprocess", "-d", 6, "-plans_name", "moved", "-c", "2d", "--workspace", tmp_path) == 0
    assert (tmp_path / "nnUNet_preprocessed" / "Dataset006_Other" / "moved_2d").is_dir()


def test_stopping_after_planning(raw, tmp_path, capsys):
    assert run("plan_and_preprocess", "-d", 5, "--no_pp", "--workspace", tmp_path) == 0
    assert not (tmp_path / "nnUNet_preprocessed" / DATASET / "nnUNetPlans_2d").exists()


def test_the_check_prints_all_problems_and_fails(raw, tmp_path, capsys):
    assert run("verify_dataset_integrity", "-d", 5, "--workspace", tmp_path) == 0
    assert capsys.readouterr().out == f"{DATASET}: 5 cases, 0 errors, 0 warnings.\n"
    dataset_json(raw, numTraining=3)
    (raw / "labelsTr" / "orphan.nii.gz").write_bytes(b"x")
    assert run("verify_dataset_integrity", "-d", 5, "--workspace", tmp_path) == 1
    assert capsys.readouterr().out.splitlines() == [
        "error: dataset.json: 'numTraining' is 3, but there are 5 cases",
        "warning: labelsTr/orphan.nii.gz: this label file has no image",
        f"{DATASET}: 5 cases, 1 errors, 1 warnings.",
    ]
    assert run("plan_and_preprocess", "-d", 5, "--verify_dataset_integrity", "--workspace", tmp_path) == 1
    assert "'numTraining' is 3, but there are 5 cases" in capsys.readouterr().err


def test_failed_cases_make_the_verb_fail_with_their_names(raw, tmp_path, capsys):
    assert run("plan_and_preprocess", "-d", 5, "--no_pp", "--workspace", tmp_path) == 0
    path = raw / "imagesTr" / "c3_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:400])
    assert run("preprocess", "-d", 5, "-c", "2d", "--workspace", tmp_path) == 1
    error = capsys.readouterr().err
    assert "c3 FAILED: " in error
    assert "1 of 5 cases failed: c3." in error


def test_pictures_of_cases(raw, tmp_path, capsys):
    out = tmp_path / "pictures"
    assert run("plot_overlay_pngs", "-d", 5, "-o", out, "--use_raw", "--workspace", tmp_path) == 0
    assert sorted(p.name for p in out.iterdir()) == [f"c{i}.png" for i in range(5)]
    picture = iio.imread(out / "c0.png")
    assert picture.shape == (24, 22, 3)
    coloured = (picture.max(axis=-1).astype(int) - picture.min(axis=-1)) > 20
    assert 0.02 < coloured.mean() < 0.9
    assert run("plan_and_preprocess", "-d", 5, "-c", "2d", "--workspace", tmp_path) == 0
    assert run("plot_overlay_pngs", "-d", 5, "-o", tmp_path / "p2", "-c", "2d", "--workspace", tmp_path) == 0
    assert len(list((tmp_path / "p2").iterdir())) == 5
    assert run("plot_overlay_pngs", "-d", 5, "-o", out, "-overlay_intensity", 3, "--workspace", tmp_path) == 1
    assert "The setting 'intensity' (-overlay_intensity) cannot be 3.0" in capsys.readouterr().err


def test_folders_are_shown_then_imported(tmp_path, capsys):
    for folder in ("input", "ground_truth"):
        (tmp_path / folder).mkdir()
        for i in range(2):
            iio.imwrite(tmp_path / folder / f"cell{i}.png", np.eye(30, dtype=np.uint8) * 200)
    words = ["import_folders", "-i", tmp_path / "input", "-m", tmp_path / "ground_truth", "--workspace", tmp_path]
    assert run(*words, "--dry_run") == 0
    assert capsys.readouterr().out.splitlines() == [
        "cell0: cell0.png  <->  cell0.png",
        "cell1: cell1.png  <->  cell1.png",
        "The masks have one value besides 0: 200.",
        "value  voxels  share   masks  becomes",
        "0      1,740   96.7 %  2      background",
        "200    60      3.3 %   2      class_1",
    ]
    assert not (tmp_path / "nnUNet_raw").exists()
    assert run(*words) == 1
    assert "Give the dataset a name (-n NAME)" in capsys.readouterr().err
    assert run(*words, "-n", "Cells", "--classes", "200=nano particle", "--channels", "phase contrast") == 0
    folder = tmp_path / "nnUNet_raw" / "Dataset001_Cells"
    assert capsys.readouterr().out.strip() == str(folder)
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {"background": 0, "nano particle": 1}
    assert content["channel_names"] == {"0": "phase contrast"}
    assert run(*words, "-n", "Cells", "--classes", "cell") == 1
    assert "--classes: 'cell' cannot be read; write it like 255=cell" in capsys.readouterr().err


def test_dataset_json_is_written_for_a_folder(raw, tmp_path, capsys):
    (raw / "dataset.json").unlink()
    words = ["generate_dataset_json", raw, "--channels", "CT", "--file_ending", ".nii.gz", "--labels"]
    assert run(*words, "liver=1") == 0
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    assert content == {
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "numTraining": 5, "file_ending": ".nii.gz",
    }  # fmt: skip
    assert run(*words, "whole=1,2", "core=2") == 1
    assert "'regions_class_order'" in capsys.readouterr().err
    assert run(*words, "whole=1,2", "core=2", "--regions_class_order", 1, 2) == 0
    assert json.loads((raw / "dataset.json").read_text(encoding="utf-8"))["labels"]["whole"] == [1, 2]


def test_planning_loads_neither_torch_nor_image_libraries(raw, tmp_path):
    assert run("extract_fingerprint", "-d", 5, "--workspace", tmp_path) == 0
    code = (
        "import sys; from napari_nnunet.cli import main;"
        f"status = main(['plan_experiment', '-d', '5', '--workspace', {str(tmp_path)!r}]);"
        "heavy = {'torch', 'scipy.ndimage', 'blosc2', 'tifffile', 'napari', 'skimage'} & set(sys.modules);"
        "sys.exit(status or bool(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_dataset_json_is_written_once_with_the_number_of_its_cases(raw, monkeypatch):
    """A disk that is full before a second time would leave one that counts no cases."""
    written = []
    monkeypatch.setattr(raw_writer, "write_json", lambda path, content: written.append(content["numTraining"]))
    assert run("generate_dataset_json", raw, "--channels", "CT", "--file_ending", ".nii.gz", "--labels", "liver=1") == 0
    assert written == [5]
