"""What would cost hours is said by the check: copies, parted patients, classes that no training sees, thin volumes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import make_dataset, smooth_image, write_nifti
from napari_nnunet.engine.image.likeness import likeness_of
from napari_nnunet.engine.training.splits import Split
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.images.files import read_labels, read_volume, write_image, write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.case_checks import CaseFacts, description_problems, scheme_problems
from napari_nnunet.jobs.dataset.contradictions import (
    fold_problems,
    intensity_problems,
    name_problems,
    thin_problems,
    twin_problems,
)
from napari_nnunet.jobs.dataset.verify import verify
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.schema.dataset import DatasetInfo, LabelScheme
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest

pytestmark = pytest.mark.usefixtures("in_one_process")

CLASSES = LabelScheme(labels={"background": 0, "liver": 1, "tumour": 2})


@pytest.fixture
def raw(tmp_path):
    return make_dataset(tmp_path, spacing=(1.0, 1.0, 1.0))


def found(raw):
    report = drain(verify(Workspace.at(raw.parents[1]), VerifyRequest(dataset=raw.name, workers=1)))
    return [str(problem) for problem in report.problems]


def says(raw, *parts):
    return any(all(part in line for part in parts) for line in found(raw))


def test_a_copy_with_noise_is_found_and_different_images_are_not(raw):
    assert not says(raw, "nearly the same")
    image = read_volume([raw / "imagesTr" / "c0_0000.nii.gz"])
    noise = np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    copy = 0.7 * image.array[0] + 0.03 * image.array.std() * noise + 12
    write_image(copy.astype(np.float32), image.geometry, raw / "imagesTr" / "c2_0000.nii.gz")
    assert says(raw, "warning: c0, c2: the images of these cases are nearly the same")


def test_exact_copies_are_not_said_twice():
    rng = np.random.default_rng(0)
    same = CaseFacts((), digest="same", likeness=likeness_of(np.float32(rng.random((4, 4)))))
    (problem,) = twin_problems({"a": same, "b": same})
    assert str(problem).startswith("warning: a, b: these cases have the same image; copies in both")


def test_a_mirrored_and_a_shifted_copy_are_found(raw):
    """With noise or in other units the one, cut out of the same voxels the other."""
    image = read_volume([raw / "imagesTr" / "c0_0000.nii.gz"])
    mirrored = np.ascontiguousarray(0.5 * image.array[0][:, :, ::-1] + 3)
    write_image(mirrored.astype(np.float32), image.geometry, raw / "imagesTr" / "c1_0000.nii.gz")
    assert says(raw, "c0, c1: the images of these cases, one mirrored along x, are nearly the same")
    shifted = np.roll(image.array[0], (1, 2, 2), (0, 1, 2))
    write_image(shifted, image.geometry, raw / "imagesTr" / "c1_0000.nii.gz")
    assert says(raw, "c0, c1: the images of these cases, or parts of them, mirrored or shifted, are nearly the same")


def test_volumes_one_voxel_thick_are_named():
    facts = {"a": CaseFacts((), shape=(5, 1, 5)), "b": CaseFacts((), shape=(5, 5, 5)), "c": CaseFacts((), shape=(5, 5))}
    (problem,) = thin_problems(facts)
    assert (problem.where, problem.text.split(".")[0]) == ("a", "this volume is one voxel thick along y")
    (problem,) = thin_problems({name: CaseFacts((), shape=(1, 5, 5)) for name in "ab"})
    assert "every volume is one slice: only a 2d network" in problem.text
    assert not list(thin_problems({"b": facts["b"], "c": facts["c"]}))


def test_a_class_that_a_training_never_sees_is_named_with_the_fold():
    labels = {"a": {0: 9, 1: 1, 2: 1}, "b": {0: 9, 1: 1, 2: 1}, "c": {0: 9, 1: 1}, "d": {0: 9, 1: 1}}
    facts = {name: CaseFacts((), labels=found) for name, found in labels.items()}
    splits = [Split(("c", "d"), ("a", "b")), Split(("a", "b"), ("c", "d"))]
    (problem,) = fold_problems(CLASSES, facts, splits)
    assert problem.text.startswith("the training of fold 0 never sees the class 'tumour' (2), which only a, b have")
    del facts["b"]
    (problem,) = fold_problems(CLASSES, facts, splits)
    assert (problem.where, problem.text[:46]) == ("a", "only this case has the class 'tumour' (2): the")


def test_patients_that_folds_part_are_pointed_out_with_the_pattern(raw):
    for i, name in enumerate(("anna_left", "anna_right", "bob_left", "bob_right")):
        (raw / "imagesTr" / f"c{i}_0000.nii.gz").rename(raw / "imagesTr" / f"{name}_0000.nii.gz")
        (raw / "labelsTr" / f"c{i}.nii.gz").rename(raw / "labelsTr" / f"{name}.nii.gz")
    assert says(raw, "splits_final.json: anna_left, anna_right look like images of one patient", "--group_by '")
    table = raw / "groups.csv"
    table.write_text("case,group\nanna_left,a\nanna_right,a\nbob_left,b\nbob_right,b\n")
    assert not says(raw, "look like images of one patient"), "the folds that will be made keep them together"
    parting = [{"train": ["anna_left", "bob_left", "bob_right"], "val": ["anna_right"]}]
    (raw / "splits_final.json").write_text(json.dumps(parting))
    assert says(raw, "1 group has cases in training and validation at once (a)")
    table.write_text("case,group\nanna_left\n")
    assert says(raw, "error: splits_final.json", "has no group")
    table.unlink()
    apart = [{"train": ["bob_left", "bob_right"], "val": ["anna_left", "anna_right"]}]
    (raw / "splits_final.json").write_text(json.dumps(apart))
    assert not says(raw, "look like images of one patient")


def test_a_region_that_is_painted_over_is_named():
    covered = LabelScheme(labels={"background": 0, "core": (2,), "whole": (1, 2)}, regions_class_order=(2, 1))
    (problem,) = scheme_problems(covered)
    assert "the region 'core' can never appear in a result: 'whole' is painted after it" in problem.text
    right = LabelScheme(labels={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
    assert not list(scheme_problems(right))
    same = LabelScheme(labels={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 1))
    assert ["both painted as 1" in problem.text for problem in scheme_problems(same)] == [True]
    assert not list(scheme_problems(CLASSES))


def test_a_case_that_is_ignore_everywhere_is_said_to_be_so(tmp_path):
    raw = make_dataset(tmp_path, spacing=(1.0, 1.0, 1.0))
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    top = max(content["labels"].values())
    content["labels"]["ignore"] = top + 1
    (raw / "dataset.json").write_text(json.dumps(content))
    labels, geometry = read_labels(raw / "labelsTr" / "c1.nii.gz")
    write_labels(np.full_like(labels, top + 1), geometry, raw / "labelsTr" / "c1.nii.gz")
    assert says(raw, "c1.nii.gz: every voxel is 'ignore': nothing can be learnt from it")
    assert not says(raw, "c1.nii.gz: no foreground")


def dots(number, seed):
    """A mask with so many separate blocks of random sizes, counted from 1."""
    mask, rng = np.zeros((4, 40, 40), np.uint8), np.random.default_rng(seed)
    for i, place in enumerate(rng.permutation(25)[:number]):
        y, x, size = 8 * (place // 5), 8 * (place % 5), rng.integers(2, 7)
        mask[1:3, y : y + size, x : x + size] = i + 1
    return mask


def organs(seed):
    """A mask of twelve classes, each at its place and of its size, in two pieces; two are missing."""
    mask, rng = np.zeros((4, 40, 40), np.uint8), np.random.default_rng(seed)
    for value in set(range(1, 13)) - set(rng.choice(12, 2, replace=False) + 1):
        y, x = 10 * ((value - 1) // 4), 10 * ((value - 1) % 4)
        mask[:, y : y + 2 + value // 2, x : x + 3] = value
        mask[:, y : y + 2 + value // 2, x + 5 : x + 8] = value
    return mask


@pytest.mark.parametrize(
    ("masks", "objects"),
    [([dots(n, n) for n in (9, 14, 20, 11)], True), ([organs(seed) for seed in range(4)], False)],
    ids=["numbers of objects", "organs"],
)
def test_classes_that_are_numbers_of_objects_are_pointed_out(tmp_path, masks, objects):
    raw = make_dataset(tmp_path, cases=0)
    for i, mask in enumerate(masks):
        write_nifti(raw / "imagesTr" / f"c{i}_0000.nii.gz", smooth_image(mask.shape, seed=i)[0])
        write_nifti(raw / "labelsTr" / f"c{i}.nii.gz", mask)
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    classes = {f"class_{value}": value for value in range(1, max(mask.max() for mask in masks) + 1)}
    content |= {"labels": {"background": 0, **classes}, "numTraining": len(masks)}
    (raw / "dataset.json").write_text(json.dumps(content, default=int))
    assert says(raw, "numbers of objects", "--objects") is objects


def test_regions_painted_with_a_value_that_is_not_theirs_are_named():
    regions = {"background": 0, "whole": (1, 2), "core": (2,)}
    (problem,) = scheme_problems(LabelScheme(labels=regions, regions_class_order=(2, 1)))
    assert "the region 'core' (2) is painted as 1 in results, which is not one of its values" in problem.text
    (problem,) = scheme_problems(LabelScheme(labels=regions, regions_class_order=(1, 7)))
    assert problem.level == "warning"
    assert "the region 'core' (2) is painted as 7 in results, a value that no region has" in problem.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"channel_names": {"CT": 0}}, "'channel_names' has the keys CT where 0, 1, ... are expected"),
        ({"channel_names": {"1": "CT"}}, "its values count, in their order: _0000 is 'CT'"),
        ({"channel_names": {"0": "CT scan"}}, "the channel 'CT scan' is normalised case by case"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "'a', 'b' have the same value, 1"),
        ({"labels": {"background": 0, "a": 1, "Ignore": 2}}, "'Ignore' is learnt as a class"),
        ({"labels": {"background": 0, "a": [0, 1]}, "regions_class_order": [1]}, "has the background"),
    ],
)
def test_what_is_said_otherwise_than_it_is_meant_is_pointed_out(change, said):
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".png"}
    assert not list(description_problems(DatasetInfo.parse(content)))
    (problem,) = description_problems(DatasetInfo.parse({**content, **change}))
    assert said in problem.text


def test_a_ct_that_was_scaled_in_every_case_is_pointed_out():
    facts = {name: CaseFacts((), intensities=((0.0, 1.0),)) for name in "abcd"}
    (problem,) = intensity_problems(["CT"], facts)
    assert "run from 0 to 1 in most cases, not in Hounsfield units" in problem.text
    assert not list(intensity_problems(["MRI"], facts))


def test_planning_says_what_dataset_json_says_otherwise_than_it_is(raw):
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    cases = content["numTraining"]
    (raw / "dataset.json").write_text(json.dumps({**content, "numTraining": 9, "channel_names": {"1": "MRI"}}))
    notes = []
    request = PlanAndPreprocessRequest(dataset=raw.name, preprocess=False)
    drain(plan_and_preprocess(Workspace.at(raw.parents[1]), request), notes.append)
    said = "\n".join(note.text for note in notes if isinstance(note, Note))
    assert f"'numTraining' is 9, but there are {cases} complete cases. Are some missing?" in said
    assert "dataset.json: 'channel_names' has the keys 1 where 0, 1, ... are expected" in said


def test_classes_without_a_name_and_names_that_nobody_tells_apart_are_said():
    scheme = LabelScheme(labels={"background": 0, "": 1, "Liver": 2, "liver ": 3, "left  kidney": 4, "spleen": 5})
    said = [problem.text for problem in name_problems(scheme)]
    assert said == [
        "the class with the value 1 has no name; write one in 'labels'",
        "the classes 'Liver' and 'liver ' differ in capitals and blanks only; are they one?",
    ]
    assert (
        list(name_problems(LabelScheme(labels={"background": 0, "a": 1, "b": (1, 2)}, regions_class_order=(1, 2))))
        == []
    )


@pytest.mark.parametrize("labels", [{"0": "background", "1": "liver"}, {"0": "background"}])
def test_labels_in_the_form_of_the_first_version_name_the_verb_that_converts_them(labels):
    with pytest.raises(DatasetError) as caught:
        DatasetInfo.parse({"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"})
    assert "has numbers before names ('0': 'background'), as nnU-Net v1" in caught.value.message
    assert "here names come first ({'background': 0})" in caught.value.message
    assert "convert_old_nnUNet_dataset, or convert_MSD_dataset" in caught.value.message


def test_classes_that_are_named_by_numbers_are_read():
    labels = {"background": 0, "1": 1, "2": 2}
    info = DatasetInfo.parse(
        {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    )
    assert info.labels.labels == labels
