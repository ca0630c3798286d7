"""Images, models, plans and dataset.json as people have them are taken rightly, or refused with the remedy."""

from __future__ import annotations

import json
import shutil

import pytest

from as_people_have_them import PLAIN, SHORT, model_in, same_voxels

pytestmark = pytest.mark.real


def _predicted(say, images, output, model):
    return say("predict_from_modelfolder", "-i", images, "-o", output, "-m", model, *PLAIN)


def test_pages_that_were_appended_are_a_stack(kind, say, tmp_path):
    folder, where = kind("tif_appended_pages"), ("--workspace", tmp_path)
    assert say("import_folders", "-i", folder / "images", "-m", folder / "masks", "-n", "New", *where).status == 0
    assert say("extract_fingerprint", "-d", 1, *where).status == 0
    measured = json.loads(
        (tmp_path / "nnUNet_preprocessed/Dataset001_New/dataset_fingerprint.json").read_text(encoding="utf-8")
    )
    assert measured["shapes_after_crop"] == list(
        json.loads((folder / "expected.json").read_text(encoding="utf-8")).values()
    )


def test_sizes_inside_tiffs_are_used_and_a_missing_one_is_named(kind, say, tmp_path):
    folder = kind("tif_without_spacing")
    one, microns = model_in(folder / "model"), model_in(folder / "model_microns")
    for part in ("imagej", "ome"):
        assert _predicted(say, folder / part, tmp_path / part, microns).status == 0
        size = json.loads((tmp_path / part / "cell.json").read_text(encoding="utf-8"))["spacing"]
        assert size == pytest.approx([0.0005, 0.00025, 0.00025])
        assert _predicted(say, folder / part, tmp_path / f"{part}_one", one).has("cell_0000.tif", "--spacing")
    plain = _predicted(say, folder / "plain", tmp_path / "plain", one)
    assert plain.status == 0 and plain.has("No voxel size in cell_0000.tif; 1 mm is assumed")
    huge = _predicted(say, folder / "plain", tmp_path / "huge", microns)
    assert huge.status == 1 and huge.has("1 x 1 x 1 mm", "0.0005 x 0.00025 x 0.00025 mm")


def test_files_with_other_endings_are_cases_or_named(kind, say, tmp_path):
    folder = kind("other_endings_left_out")
    said = _predicted(say, folder / "images", tmp_path / "out", model_in(folder / "model"))
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {
        "UPPER.nii.gz",
        "lower.nii.gz",
        "plain.nii.gz",
    }
    assert said.has("left out: more/ (a subfolder)")
    where = "--workspace", tmp_path / "ws"
    said = say("import_folders", "-i", folder / "images", "-m", folder / "masks", "-n", "New", *where)
    assert said.has("left out", "more")
    assert len(list((tmp_path / "ws" / "nnUNet_raw" / "Dataset001_New" / "labelsTr").iterdir())) == 3
    said = say("plan_and_preprocess", "-d", 10, "-c", "3d_fullres", "--workspace", folder)
    assert said.has("UPPER_0000.NII.GZ, more/, plain_0000.nii")


def test_slightly_wrong_nifti_files_are_read_as_they_are_meant(kind, say, tmp_path):
    folder = kind("nifti_refused")
    said = _predicted(say, folder / "images", tmp_path / "out", model_in(folder / "model"))
    _predicted(say, folder / "expected", tmp_path / "right", model_in(folder / "model"))
    assert said.status == 0 and said.has("not at right angles", "not compressed", "bytes after its end", "byte 352")
    for name in ("sheared", "notzipped", "trailing", "offset"):
        assert same_voxels(tmp_path / "out" / f"{name}.nii.gz", tmp_path / "right" / "same.nii.gz"), name


def test_harmless_checkpoints_predict_as_the_model_they_were_made_from(kind, say, tmp_path, real_data, monkeypatch):
    folder = kind("harmless_checkpoint")
    monkeypatch.chdir(tmp_path)
    plain = model_in(real_data / "parity" / "inference" / "plain2d" / "nnUNet_results")
    assert _predicted(say, folder / "images", tmp_path / "right", plain).status == 0
    for name in ("arrays", "half", "defaultdict", "paths", "prefix"):
        assert _predicted(say, folder / "images", tmp_path / name, model_in(folder / name)).status == 0, name
        assert same_voxels(tmp_path / name / "case_000.nii.gz", tmp_path / "right" / "case_000.nii.gz"), name
    hostile = _predicted(say, folder / "images", tmp_path / "hostile", model_in(folder / "hostile"))
    assert hostile.status == 1 and hostile.has("would execute code", "Nothing was executed")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["bare", "windows", "mac", "nested"])
def test_zips_made_by_hand_are_installed_and_replace_no_other_model(name, kind, say):
    folder = kind("zips_by_hand")
    models = folder / "nnUNet_results" / "Dataset410_Ensemble2d3d"
    (other,) = models.iterdir()
    before = sorted(path.relative_to(other) for path in other.rglob("*"))
    for more in ((), ("--replace",)):
        said = say("install_pretrained_model_from_zip", folder / f"{name}.zip", "--workspace", folder, *more)
        assert said.status == 0
        assert {path.name for path in models.iterdir()} == {"nnUNetTrainer__nnUNetPlans__2d", other.name}
        assert sorted(path.relative_to(other) for path in other.rglob("*")) == before
    assert (models / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0" / "checkpoint_final.pth").is_file()


def test_models_of_nnunet_v1_are_named_as_such(kind, say, tmp_path):
    folder = kind("old_models")
    old = folder / "nnUNet" / "3d_fullres" / "Task017_Ball" / "nnUNetTrainerV2__nnUNetPlansv2.1"
    words = "nnU-Net v1", "import_old_nnunet_model"
    assert _predicted(say, folder / "images", tmp_path / "out", old).has(*words)
    zipped = say("install_pretrained_model_from_zip", folder / "Task017_Ball.zip", "--workspace", tmp_path / "ws")
    assert zipped.status == 1 and zipped.has(*words)


PLANS = "nnUNet_preprocessed/Dataset401_Plain3d/nnUNetPlans.json"


def test_another_patch_needs_no_new_preprocessing(kind, say):
    folder = kind("patch_in_plans")
    whole = folder / "whole"
    preprocess, where = ("preprocess", "-d", 401, "-c"), ("--workspace", whole)
    assert say(*preprocess, "3d_fullres", *where).status == 0
    assert say("train", 401, "3d_fullres", "all", *SHORT, *where).status == 0
    shutil.copy(whole / "patch.json", whole / PLANS)
    assert say(*preprocess, "3d_fullres", *where).has("2 of 2 cases are up to date.")
    shutil.rmtree(whole / "nnUNet_results")
    assert say("train", 401, "3d_fullres", "all", *SHORT, *where).status == 0


def test_two_configurations_share_their_data(kind, say):
    where = "--workspace", kind("patch_in_plans") / "two"
    assert say("preprocess", "-d", 401, "-c", "3d_fullres", *where).status == 0
    for configuration in ("3d_half", "3d_fullres"):
        said = say("preprocess", "-d", 401, "-c", configuration, *where)
        assert said.status == 0 and said.has("2 of 2 cases are up to date.")


@pytest.mark.parametrize(
    ("slip", "words"),
    [
        ("odd", ("'patch_size' is [15, 23, 23]", "[16, 24, 24]")),
        ("batch", ("'batch_size' is 0",)),
        ("features", ("'features_per_stage' is [4, 8]", "[4, 8, 8]")),
        ("spacing", ("'spacing.0' is 0.0",)),
    ],
)
def test_slips_in_plans_are_named_with_file_key_and_remedy(slip, words, kind, say):
    where = "--workspace", kind("patch_in_plans") / slip
    for command in (
        ("preprocess", "-d", 401, "-c", "3d_fullres"),
        ("train", 401, "3d_fullres", "all", *SHORT),
    ):
        said = say(*command, *where)
        assert said.status == 1 and said.has("nnUNetPlans.json", *words)


@pytest.mark.parametrize(
    ("dataset", "status", "words"),
    [
        (13, 0, ("utf-16",)),
        (113, 0, ("cp1252",)),
        (213, 1, ("dataset.json", "'numTraining' is 'four'")),
        (313, 1, ("dataset.json", "'regions_class_order' is [[1], [2]]")),
    ],
)
def test_dataset_json_is_read_in_other_encodings_and_its_slips_are_named(dataset, status, words, kind, say):
    where = "--workspace", kind("dataset_json_by_hand")
    checked = say("verify_dataset_integrity", "-d", dataset, *where)
    assert checked.status == status and checked.has(*words)
    planned = say("plan_and_preprocess", "-d", dataset, "-c", "3d_fullres", *where)
    assert planned.status == status and planned.has(*(words if status else ()))
