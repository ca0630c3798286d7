"""The check of a raw dataset: every problem has its sentence, and all come at once."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import DATASET, dataset_json, make_dataset, smooth_image, write_nifti
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_writer import drop_case, set_spacing, update_count
from napari_nnunet.formats.dataset.relabel import remap_dataset
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset import verify as module
from napari_nnunet.jobs.dataset.verify import require_sound, verify
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest

pytestmark = pytest.mark.usefixtures("in_one_process")


@pytest.fixture
def raw(tmp_path):
    return make_dataset(tmp_path, cases=5)


def report(raw):
    return drain(verify(Workspace.at(raw.parents[1]), VerifyRequest(dataset=raw.name)))


def lines(raw):
    return [str(problem) for problem in report(raw).problems]


def says(raw, *texts):
    """Assert that exactly these problems are found, each given by a part of its line."""
    found = lines(raw)
    missing = [text for text in texts if not any(text in line for line in found)]
    assert not missing, found
    assert len(found) == len(texts), found


def image(raw, name, array, spacing=(1.0, 0.8, 0.8)):
    write_nifti(raw / "imagesTr" / f"{name}_0000.nii.gz", array, spacing)


def labels(raw, name, array, spacing=(1.0, 0.8, 0.8)):
    write_nifti(raw / "labelsTr" / f"{name}.nii.gz", np.asarray(array, np.uint8), spacing)


def test_a_sound_dataset_has_no_problems(raw):
    found = report(raw)
    assert (found.cases, found.problems) == (5, ())
    require_sound(found)


def test_missing_keys_are_all_named(raw):
    dataset_json(raw, channel_names=None, numTraining=None, modality={"0": "MR"})
    says(
        raw,
        'error: dataset.json: the key \'channel_names\' is missing: the channels, for instance {"0": "CT"} '
        "('modality' is its name in old datasets)",
        "error: dataset.json: the key 'numTraining' is missing: the number of training cases",
    )


def test_a_dataset_without_json_or_with_a_broken_one(raw):
    (raw / "dataset.json").write_text("{")
    says(raw, "is not valid JSON")
    (raw / "dataset.json").unlink()
    says(raw, "is not a dataset: it has no dataset.json")


def test_files_that_do_not_belong_together(raw):
    dataset_json(raw, channel_names={"0": "T1", "1": "T2"}, numTraining=7)
    for i in range(5):
        image(raw, f"c{i}", smooth_image((20, 24, 22), seed=i)[0])
        shutil.copy(raw / "imagesTr" / f"c{i}_0000.nii.gz", raw / "imagesTr" / f"c{i}_0001.nii.gz")
    (raw / "imagesTr" / "c1_0001.nii.gz").rename(raw / "imagesTr" / "c1_0002.nii.gz")
    (raw / "labelsTr" / "c2.nii.gz").rename(raw / "labelsTr" / "orphan.nii.gz")
    (raw / "imagesTr" / "stray.nii.gz").write_bytes(b"x")
    (raw / "imagesTr" / "._c0_0000.nii.gz").write_bytes(b"left by a Mac")
    says(
        raw,
        "error: imagesTr/stray.nii.gz: the name must end in _0000.nii.gz (the channel number)",
        "error: c1: c1_0001.nii.gz is missing; the dataset has 2 channels",
        "error: c2: labelsTr/c2.nii.gz is missing",
        "warning: labelsTr/orphan.nii.gz: this label file has no image",
        "warning: Dataset005_Test: 3 cases are fewer than nnU-Net's five folds need; there will be 3 folds at most",
    )


def test_the_count_and_its_remedy(raw):
    dataset_json(raw, numTraining=9)
    says(raw, "error: dataset.json: 'numTraining' is 9, but there are 5 cases")
    update_count(raw)
    says(raw)


def test_label_values_that_are_not_consecutive_are_renumbered(raw):
    for i in range(5):
        array = np.zeros((20, 24, 22))
        array[5:9, 5:9, 5:9], array[12:15, 3:9, 3:9] = 10, 20
        labels(raw, f"c{i}", array)
    dataset_json(raw, labels={"background": 0, "tumour": 10, "cyst": 20})
    says(raw, "error: dataset.json: the label values are 0, 10, 20; they must be consecutive: 0 to 2")
    assert remap_dataset(raw) == {0: 0, 10: 1, 20: 2}
    says(raw)
    assert json.loads((raw / "dataset.json").read_text(encoding="utf-8"))["labels"] == {
        "background": 0,
        "tumour": 1,
        "cyst": 2,
    }
    assert not list(raw.glob(".*"))


def test_an_interrupted_renumbering_is_finished_and_never_done_twice(raw, monkeypatch):
    for i in range(5):
        array = np.zeros((20, 24, 22))
        array[5:9], array[12:15] = 2, 3
        labels(raw, f"c{i}", array)
    dataset_json(raw, labels={"background": 0, "a": 2, "b": 3})
    from napari_nnunet.formats.dataset import relabel

    moved, replace = [], relabel.os.replace

    def stop_after_two(source, target):
        if str(target).startswith(str(raw / "labelsTr")):
            moved.append(target)
            if len(moved) == 3:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(relabel.os, "replace", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        remap_dataset(raw)
    monkeypatch.setattr(relabel.os, "replace", replace)
    assert remap_dataset(raw) == {0: 0, 2: 1, 3: 2}
    for i in range(5):
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "labelsTr" / f"c{i}.nii.gz")))
        assert (array[6].max(), array[13].max()) == (1, 2)


def test_values_shapes_and_spacings_that_differ(raw):
    array = np.zeros((20, 24, 22))
    array[3:6, 3:6, 3:6], array[0, 0, :3] = 1, 7
    labels(raw, "c0", array)
    labels(raw, "c1", np.ones((5, 5, 5)))
    labels(raw, "c2", np.eye(24)[None, :, :22].repeat(20, axis=0), spacing=(1.0, 0.8, 0.9))
    labels(raw, "c3", np.zeros((20, 24, 22)))
    says(
        raw,
        "error: c0.nii.gz: it contains 7 (3 voxels), which dataset.json does not define; it has 0, 1",
        "error: c1: the image has 20 x 24 x 22 voxels, its labels have 5 x 5 x 5",
        "error: c2: the image has a voxel size of 1 x 0.8 x 0.8 mm, its labels of 1 x 0.8 x 0.9",
        "warning: c3.nii.gz: no foreground: only background is labelled",
    )


def test_nothing_to_learn(raw):
    for i in range(5):
        labels(raw, f"c{i}", np.zeros((20, 24, 22)))
    assert "error: labelsTr: no case has any foreground; there is nothing to learn" in lines(raw)


def test_a_class_that_never_occurs(raw):
    dataset_json(raw, labels={"background": 0, "a": 1, "rare": 2})
    says(raw, "warning: dataset.json: the class 'rare' (2) occurs in no case; it cannot be learnt")


def test_values_that_are_no_numbers(raw):
    broken = smooth_image((20, 24, 22), seed=0)[0].copy()
    broken[0, 0, :2] = np.nan, np.inf
    image(raw, "c0", broken)
    says(raw, "warning: c0_0000.nii.gz: 2 voxels are NaN or infinite; they are read as 0")


def test_values_that_are_no_numbers_in_other_formats(raw):
    for path in [*raw.glob("*Tr/*.nii.gz")]:
        picture = sitk.ReadImage(str(path))
        if path.name == "c3_0000.nii.gz":
            array = sitk.GetArrayFromImage(picture)
            array[0, 0, 0] = np.nan
            new = sitk.GetImageFromArray(array)
            new.CopyInformation(picture)
            picture = new
        sitk.WriteImage(picture, str(path)[:-7] + ".nrrd")
        path.unlink()
    dataset_json(raw, file_ending=".nrrd")
    says(raw, "error: c3_0000.nrrd: 1 voxel is NaN or infinite; replace them")


def test_orientations_copies_and_constants(raw):
    path = raw / "imagesTr" / "c1_0000.nii.gz"
    for file in (path, raw / "labelsTr" / "c1.nii.gz"):
        picture = sitk.ReadImage(str(file))
        picture.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
        sitk.WriteImage(picture, str(file))
    shutil.copy(raw / "imagesTr" / "c2_0000.nii.gz", raw / "imagesTr" / "c4_0000.nii.gz")
    image(raw, "c0", np.full((20, 24, 22), 7, np.int16))
    says(
        raw,
        "warning: c1: orientation RPS differs from most cases (LPS); images are not reoriented automatically",
        "warning: c2, c4: these cases have the same image; copies in both training and validation inflate the scores",
        "warning: c0: every voxel of the image is 7",
    )


def test_image_and_labels_at_different_places(raw):
    file = raw / "labelsTr" / "c1.nii.gz"
    picture = sitk.ReadImage(str(file))
    picture.SetOrigin((30, 0, 0))
    sitk.WriteImage(picture, str(file))
    says(raw, "error: c1: the labels lie in another place than the image (places 30 mm apart)")


def test_spacings_that_are_hard_to_believe(raw):
    for seed, (name, spacing) in enumerate((("c1", (500.0, 0.8, 0.8)), ("c2", (9.0, 0.8, 0.8)))):
        array = smooth_image((20, 24, 22), seed=seed + 10)[0]
        image(raw, name, array, spacing)
        labels(raw, name, array > 120, spacing)
    says(
        raw,
        "warning: c1: a voxel size of 500 x 0.8 x 0.8 mm is implausible",
        "warning: c1: its voxel size of 500 x 0.8 x 0.8 mm is far from the usual 1 x 0.8 x 0.8",
        "warning: c2: its voxel size of 9 x 0.8 x 0.8 mm is far from the usual 1 x 0.8 x 0.8",
    )
    set_spacing(raw, (1.0, 0.8, 0.8), ["c1", "c2"])
    says(raw)


def test_unreadable_files_are_named_and_can_be_dropped(raw):
    path = raw / "imagesTr" / "c3_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:700])
    found = report(raw).problems
    assert len(found) == 1
    assert found[0].where == "c3"
    assert "truncated" in found[0].text
    assert found[0].fix == "drop_case"
    trash = drop_case(raw, "c3")
    assert sorted(p.name for p in trash.rglob("*.nii.gz")) == ["c3.nii.gz", "c3_0000.nii.gz"]
    says(raw, "4 cases are fewer than nnU-Net's five folds need")
    with pytest.raises(DatasetError, match="has no case c3"):
        drop_case(raw, "c3")


def test_stacks_without_a_voxel_size_and_the_remedy(tmp_path):
    import tifffile

    raw = tmp_path / "nnUNet_raw" / DATASET
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for i in range(5):
        array = smooth_image((12, 24, 22), seed=i)[0]
        tifffile.imwrite(raw / "imagesTr" / f"c{i}_0000.tif", array.astype(np.float32))
        tifffile.imwrite(raw / "labelsTr" / f"c{i}.tif", (array > 120).astype(np.uint8))
    content = {
        "channel_names": {"0": "EM"},
        "labels": {"background": 0, "a": 1},
        "numTraining": 5,
        "file_ending": ".tif",
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    says(raw, "5 of 5 cases have no voxel size; 1 mm is assumed in every direction")
    set_spacing(raw, (0.04, 0.01, 0.01))
    says(raw)


def test_a_voxel_size_that_nnunet_would_not_see_is_named(tmp_path):
    import tifffile

    raw = make_dataset(tmp_path, cases=0)
    dataset_json(raw, file_ending=".tif", numTraining=5)
    for i in range(5):
        array = smooth_image((12, 24, 22), seed=i)[0]
        how = {"imagej": True, "resolution": (4.0, 4.0), "metadata": {"spacing": 0.5, "unit": "um", "axes": "ZYX"}}
        tifffile.imwrite(raw / "imagesTr" / f"c{i}_0000.tif", array.astype(np.float32), **how)
        tifffile.imwrite(raw / "labelsTr" / f"c{i}.tif", (array > 120).astype(np.uint8), **how)
    inside = "5 of 5 cases have a voxel size inside their TIFF, which is used here; nnU-Net does not look there"
    assert any(inside in line for line in lines(raw))
    set_spacing(raw, (0.0005, 0.00025, 0.00025))
    assert not any("inside their TIFF" in line for line in lines(raw))


def test_too_little_room(raw, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    monkeypatch.setattr(module, "available_memory", lambda: 1000)
    found = lines(raw)
    assert any("preprocessing needs about 0.0 GB, but only 0.0 GB are free" in line for line in found), found
    assert any("it needs about 0.2 GB of memory, 0.0 GB are free" in line for line in found), found


def test_planning_stops_at_errors_when_asked_to_check(raw):
    labels(raw, "c1", np.ones((5, 5, 5)))
    (raw / "labelsTr" / "c2.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"cannot be used as it is:\n  c2: .* is missing\n  c1: the image has"):
        drain(plan_and_preprocess(Workspace.at(raw.parents[1]), PlanAndPreprocessRequest(dataset=DATASET, check=True)))
