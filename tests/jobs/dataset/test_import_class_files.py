"""Masks with one file per class are recognised by their names, joined, and asked about where classes overlap."""

from __future__ import annotations

import imageio.v3 as iio
import nibabel
import numpy as np
import pytest

from helpers import write_nifti
from napari_nnunet.cli import main
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.masks.stored import joined_classes, numbers_of
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.jobs.dataset.import_plan import plan_import
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest

pytestmark = pytest.mark.usefixtures("in_one_process")

SHAPE = (6, 20, 24)
WAYS = ("{case}/{name}", "{name}/{case}", "{case}_{name}", "{name}_{case}", "{case}/{case}_{name}_mask")


def boxes(*, overlap):
    """Return a large liver and a small tumour, inside it or beside it."""
    liver, tumour = np.zeros((2, *SHAPE), np.uint8)
    liver[1:5, 2:14, 2:12] = 1
    tumour[2:4, 4:8, 6 if overlap else 15 : 10 if overlap else 20] = 255
    return {"liver": liver, "tumour": tumour}


def write(root, way="{case}_{name}", *, overlap=False, cases=("p1", "p2")):
    for i, case in enumerate(cases):
        image = np.random.default_rng(i).normal(size=SHAPE).astype(np.float32)
        (root / "images").mkdir(exist_ok=True)
        write_nifti(root / "images" / f"{case}_0000.nii.gz", image)
        for name, mask in boxes(overlap=overlap).items():
            path = root / "masks" / f"{way.format(case=case, name=name)}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_nifti(path, mask)


def request(root, **changes):
    return ImportFoldersRequest(images=root / "images", masks=root / "masks", name="New", workers=1, **changes)


def question(root, **changes):
    with pytest.raises(DatasetError) as caught:
        drain(import_folders(Workspace.at(root), request(root, **changes)))
    return caught.value.message


@pytest.mark.parametrize("way", WAYS)
def test_files_per_class_are_joined_however_they_are_named(tmp_path, way):
    write(tmp_path, way)
    events = []
    made = drain(import_folders(Workspace.at(tmp_path), request(tmp_path)), events.append)
    assert [e.text for e in events if isinstance(e, Note)] == ["Every class is a file of its own: liver, tumour."]
    dataset = open_dataset(made)
    assert dataset.info.labels.labels == {"background": 0, "liver": 1, "tumour": 2}
    parts = boxes(overlap=False)
    wanted = parts["liver"] + 2 * (parts["tumour"] > 0)
    assert [case.name for case in dataset.cases] == ["p1", "p2"]
    for case in dataset.cases:
        assert np.array_equal(read_labels(case.label)[0], wanted)


def test_where_classes_overlap_the_smaller_one_is_proposed_and_asked_about(tmp_path):
    write(tmp_path, overlap=True)
    said = question(tmp_path)
    assert "64 voxels lie in several; there the smaller class is proposed (tumour over liver)" in said
    assert "--map 1=liver 2=tumour 5=tumour" not in said  # no voxel has the tumour alone
    assert said.endswith("If that is right, import with: --map 1=liver 5=tumour")
    answers = ({"1": "liver", "5": "tumour"}, 2), ({"1,5": "liver"}, 1)
    for number, (mapping, top) in enumerate(answers):
        made = drain(import_folders(Workspace.at(tmp_path / str(number)), request(tmp_path, mapping=mapping)))
        labels = read_labels(open_dataset(made).cases[0].label)[0]
        parts = boxes(overlap=True)
        assert np.array_equal(labels, np.where(parts["tumour"] > 0, top, parts["liver"]))


def test_a_class_that_a_case_lacks_may_have_no_file(tmp_path):
    write(tmp_path, "{name}/{case}")
    (tmp_path / "masks" / "tumour" / "p2.nii.gz").unlink()
    made = drain(import_folders(Workspace.at(tmp_path), request(tmp_path)))
    assert [int(read_labels(case.label)[0].max()) for case in open_dataset(made).cases] == [2, 1]


def test_a_mirrored_file_of_a_class_is_turned(tmp_path):
    write(tmp_path)
    path = tmp_path / "masks" / "p1_tumour.nii.gz"
    image = nibabel.load(path)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[2] - 1
    nibabel.save(nibabel.Nifti1Image(np.flip(np.asarray(image.dataobj), 0), image.affine @ flip), path)
    made = drain(import_folders(Workspace.at(tmp_path), request(tmp_path)))
    one, other = (read_labels(case.label)[0] for case in open_dataset(made).cases)
    assert np.array_equal(one, other)


def test_a_file_with_several_values_is_named(tmp_path):
    write(tmp_path)
    soft = boxes(overlap=False)["liver"] * np.float32(0.5)
    soft[2, 3, 3] = 0.75
    write_nifti(tmp_path / "masks" / "p2_liver.nii.gz", soft)
    assert "p2_liver.nii.gz has the values 0, 0.5, 0.75; a file for one class has 0 and one other value" in question(
        tmp_path
    )


def test_files_of_single_objects_are_no_classes(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for case in ("a", "b"):
        iio.imwrite(tmp_path / "images" / f"{case}.png", np.zeros((20, 20), np.uint8))
        (tmp_path / "masks" / case).mkdir(parents=True)
        for i in range(3):
            iio.imwrite(tmp_path / "masks" / case / f"x{case}{i}.png", np.eye(20, dtype=np.uint8))
    words = ["import_folders", "-i", tmp_path / "images", "-m", tmp_path / "masks", "--dry_run", "--no_pbar"]
    assert main(list(map(str, words))) == 1
    assert "has a mask of the same name" in capsys.readouterr().err


def test_cases_of_files_per_class_are_added_to_a_dataset_by_the_names_of_its_classes(tmp_path):
    write(tmp_path)
    made = drain(import_folders(Workspace.at(tmp_path), request(tmp_path)))
    content = (made / "dataset.json").read_text(encoding="utf-8")
    (made / "dataset.json").write_text(
        content.replace('"liver": 1', '"tumour": 1').replace('"tumour": 2', '"liver": 2')
    )
    more = tmp_path / "more"
    more.mkdir()
    write(more, cases=("q1", "q2"))
    drain(import_folders(Workspace.at(tmp_path), request(more, dataset=made.name)))
    labels = {case.name: read_labels(case.label)[0] for case in open_dataset(made).cases}
    parts = boxes(overlap=False)
    assert np.array_equal(labels["q1"], 2 * parts["liver"] + (parts["tumour"] > 0))


def test_masks_named_after_another_class_than_their_value_are_asked_about(tmp_path):
    write(tmp_path)
    made = drain(import_folders(Workspace.at(tmp_path), request(tmp_path)))
    more = tmp_path / "more"
    more.mkdir()
    write(more, cases=("d1", "d2"))
    for case in ("d1", "d2"):
        write_nifti(more / "masks" / f"{case}_tumour.nii.gz", boxes(overlap=False)["tumour"] // 255)
        (more / "masks" / f"{case}_liver.nii.gz").unlink()
    asked = request(more, dataset=made.name)
    with pytest.raises(DatasetError, match=r"d1_tumour.* after the class tumour \(2 in .*value 1, which is liver"):
        drain(import_folders(Workspace.at(tmp_path), asked))
    drain(import_folders(Workspace.at(tmp_path), asked.replace(mapping={"1": "tumour"})))
    labels = {case.name: read_labels(case.label)[0] for case in open_dataset(made).cases}
    assert np.unique(labels["d1"]).tolist() == [0, 2]


def test_a_plan_says_which_files_a_mask_is_joined_of(tmp_path):
    write(tmp_path)
    plan = drain(plan_import(Workspace.at(tmp_path), request(tmp_path)))
    assert [case.pair.mask_words for case in plan.cases] == ["files of liver, tumour"] * 2
    assert [row.becomes for row in plan.recognised.rows] == ["background", "liver", "tumour"]


def test_what_overlaps_is_told_apart_whatever_overlaps():
    rng = np.random.default_rng(0)
    parts = rng.random((5, 400)) < 0.5
    array = joined_classes(enumerate(parts, start=1), (400,), 5)
    for i in range(400):
        assert numbers_of(int(array[i]), 5) == tuple(np.flatnonzero(parts[:, i]) + 1)


def test_why_masks_beside_files_per_class_are_left_out_is_true(tmp_path):
    write(tmp_path)
    for name in ("p1", "p2_2", "p7_liver"):
        write_nifti(tmp_path / "masks" / f"{name}.nii.gz", boxes(overlap=False)["liver"])
    plan = drain(plan_import(Workspace.at(tmp_path), request(tmp_path)))
    assert {left.path.name: left.why for left in plan.left_out} == {
        "p1.nii.gz": "its case has a file for each class",
        "p2_2.nii.gz": "its name tells no class",
        "p7_liver.nii.gz": "no image has its name",
    }
