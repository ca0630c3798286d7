"""Labels that were drawn from numbered objects stay those of the objects, whatever is changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, Pump, drain
from napari_nnunet.formats.dataset.case_trash import cases_in_trash
from napari_nnunet.formats.dataset.objects import (
    DrawnObjects,
    look_at_drawn,
    object_kinds,
    object_scheme,
    read_objects,
    rename_kinds,
)
from napari_nnunet.formats.dataset.raw_dataset import read_info, survey
from napari_nnunet.formats.dataset.raw_writer import (
    bring_case_back,
    create_dataset,
    drop_case,
    place_labels,
    set_spacing,
)
from napari_nnunet.formats.dataset.relabel import change_classes, remap_dataset
from napari_nnunet.formats.images.files import read_labels, write_image, write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.cases import NewCase
from napari_nnunet.jobs.dataset.verify import verify
from napari_nnunet.jobs.objects.cases import add_object_case, correct_objects
from napari_nnunet.jobs.objects.derive import derive_objects
from napari_nnunet.jobs.objects.draw import draw_again
from napari_nnunet.jobs.planning.plan import extract_fingerprint
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.dataset import DeriveObjectsRequest, VerifyRequest
from napari_nnunet.schema.requests.planning import FingerprintRequest

pytestmark = pytest.mark.usefixtures("in_one_process")

GRID = Geometry(spacing=(2.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=(1.0, 0, 0, 0, 1, 0, 0, 0, 1))


def balls(first: int = 1) -> np.ndarray:
    """Two boxes that touch."""
    objects = np.zeros((6, 20, 24), dtype=np.uint16)
    objects[1:5, 4:14, 2:12], objects[1:5, 4:14, 12:22] = first, first + 1
    return objects


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of three volumes and their objects, derived."""
    workspace = Workspace.at(tmp_path)
    folder = workspace.raw / "Dataset001_Boxes"
    create_dataset(folder, ["grey"], {"background": 0, "object": 1}, ".nii.gz")
    (folder / "objectsTr").mkdir()
    for case in "abc":
        image = np.random.default_rng(ord(case)).normal(size=(6, 20, 24)).astype(np.float32)
        write_image(image, GRID, folder / "imagesTr" / f"{case}_0000.nii.gz")
        write_labels(balls(), GRID, folder / "objectsTr" / f"{case}.nii.gz")
    drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1", kinds={1: "box"}, width=1, workers=1)))
    return folder


def workspace_of(folder: Path) -> Workspace:
    """The workspace of the dataset."""
    return Workspace.at(folder.parents[1])


def move_objects(folder: Path, case: str) -> None:
    """Shift the objects of a case."""
    path = folder / "objectsTr" / f"{case}.nii.gz"
    write_labels(np.roll(balls(), 3, axis=1), GRID, path)


def labels(folder: Path, case: str) -> np.ndarray:
    """The labels of a case."""
    return read_labels(folder / "labelsTr" / f"{case}.nii.gz")[0]


def foreground_fits(folder: Path, case: str) -> bool:
    """Whether cores and borders lie exactly where objects do."""
    objects, _ = read_objects(folder / "objectsTr" / f"{case}.nii.gz")
    return bool(np.array_equal(labels(folder, case) != 0, objects != 0))


def fingerprint(folder: Path) -> str:
    """Measure the dataset, return what notes said."""
    with Pump(extract_fingerprint(workspace_of(folder), FingerprintRequest(dataset="1", workers=1))) as events:
        return "\n".join(event.text for event in events if isinstance(event, Note))


def test_objects_that_changed_are_drawn_again_before_they_are_measured(folder: Path) -> None:
    assert look_at_drawn(folder) == DrawnObjects()
    move_objects(folder, "b")
    assert look_at_drawn(folder) == DrawnObjects(stale=("b",))
    problems = drain(verify(workspace_of(folder), VerifyRequest(dataset="1"))).problems
    assert [(p.level, p.fix) for p in problems if p.where == "b"] == [("warning", "draw_again")]
    assert "objects of b changed" in fingerprint(folder)
    assert foreground_fits(folder, "b")
    assert look_at_drawn(folder) == DrawnObjects()
    assert "changed" not in fingerprint(folder)


def test_files_that_were_only_touched_are_not_drawn_again(folder: Path) -> None:
    path = folder / "objectsTr" / "a.nii.gz"
    path.write_bytes(path.read_bytes())
    assert look_at_drawn(folder) == DrawnObjects()


def test_other_rules_in_dataset_json_are_other_labels(folder: Path) -> None:
    path = folder / "dataset.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"width": 1.0', '"width": 2.0'))
    assert look_at_drawn(folder).stale == ("a", "b", "c")


def test_labels_changed_by_hand_are_refused_and_drawn_again_on_demand(folder: Path) -> None:
    write_labels(np.roll(labels(folder, "c"), 2, axis=2), GRID, folder / "labelsTr" / "c.nii.gz")
    assert look_at_drawn(folder) == DrawnObjects(changed=("c",))
    with pytest.raises(DatasetError, match="labels of c are not those that were drawn"):
        fingerprint(folder)
    report = drain(verify(workspace_of(folder), VerifyRequest(dataset="1")))
    assert [(p.where, p.fix) for p in report.errors] == [("c", "draw_again")]
    assert drain(draw_again(folder)) == ("c",)
    assert foreground_fits(folder, "c")
    assert [entry.name for entry in cases_in_trash(folder)] == ["c"]


def test_a_case_without_objects_is_refused(folder: Path) -> None:
    (folder / "objectsTr" / "a.nii.gz").unlink()
    with pytest.raises(DatasetError, match="a have labels, but no file in objectsTr"):
        fingerprint(folder)
    assert [p.where for p in drain(verify(workspace_of(folder), VerifyRequest(dataset="1"))).errors] == ["a"]


def test_labels_of_classes_are_not_lost_when_a_dataset_becomes_one_of_objects(tmp_path: Path, folder: Path) -> None:
    (folder / "objects_sources.jsonl").unlink()
    write_labels((balls() != 0).astype(np.uint8), GRID, folder / "labelsTr" / "a.nii.gz")
    drain(derive_objects(workspace_of(folder), DeriveObjectsRequest(dataset="1", width=1, workers=1)))
    kept = next(entry for entry in cases_in_trash(folder) if entry.name == "a").path / "labelsTr" / "a.nii.gz"
    assert read_labels(kept)[0].max() == 1
    assert object_scheme(folder).kinds == {"box": (1, 2)}  # what was said before is not forgotten


def test_labels_that_a_killed_job_drew_and_did_not_note_are_nobodys_own(folder: Path) -> None:
    (folder / "objects_sources.jsonl").unlink()
    drain(derive_objects(workspace_of(folder), DeriveObjectsRequest(dataset="1", width=1, workers=1)))
    assert cases_in_trash(folder) == []
    assert look_at_drawn(folder) == DrawnObjects()


def test_a_case_goes_into_the_trash_with_its_objects_and_comes_back_with_them(folder: Path) -> None:
    drop_case(folder, "b")
    assert not list(folder.glob("*Tr/b*"))
    (entry,) = cases_in_trash(folder)
    bring_case_back(folder, entry)
    assert {path.parent.name for path in folder.glob("*Tr/b*")} == {"imagesTr", "labelsTr", "objectsTr"}
    assert look_at_drawn(folder) == DrawnObjects()


def test_a_corrected_voxel_size_or_place_is_that_of_the_objects_too(folder: Path) -> None:
    set_spacing(folder, (3.0, 2.0, 2.0))
    assert read_objects(folder / "objectsTr" / "a.nii.gz")[1].spacing == (3.0, 2.0, 2.0)
    moved = GRID.model_copy(update={"spacing": (3.0, 2.0, 2.0), "origin": (50.0, 0.0, 0.0)})
    for where in ("labelsTr", "objectsTr"):
        write_labels(read_labels(folder / where / "b.nii.gz")[0], moved, folder / where / "b.nii.gz")
    place_labels(folder, "b")
    assert read_objects(folder / "objectsTr" / "b.nii.gz")[1].origin == (0.0, 0.0, 0.0)
    fingerprint(folder)
    assert look_at_drawn(folder) == DrawnObjects()


def test_values_that_mean_cores_and_borders_are_not_merged_or_renumbered(folder: Path) -> None:
    for change in (lambda: change_classes(folder, {"box core": "box border"}), lambda: remap_dataset(folder)):
        with pytest.raises(DatasetError, match="drawn from its numbered objects"):
            change()
    assert object_scheme(folder).kinds == {"box": (1, 2)}


def test_kinds_are_renamed_and_their_labels_stay(folder: Path) -> None:
    rename_kinds(folder, {"box": "crate"})
    assert dict(read_info(folder).labels.labels) == {"background": 0, "crate core": 1, "crate border": 2}
    assert object_scheme(folder).kinds == {"crate": (1, 2)}
    assert look_at_drawn(folder) == DrawnObjects()
    for names in ({"box": "x"}, {"crate": ""}, {"crate": "ignore"}):
        with pytest.raises(DatasetError):
            rename_kinds(folder, names)


def test_kinds_on_another_grid_are_turned_or_refused(folder: Path) -> None:
    kinds = np.where(balls() == 1, 1, np.where(balls() == 2, 2, 0)).astype(np.uint8)
    flipped = GRID.model_copy(update={"origin": (23.0, 0.0, 0.0), "direction": (-1.0, 0, 0, 0, 1, 0, 0, 0, 1)})
    (folder / "kindsTr").mkdir()
    for case in "abc":
        write_labels(kinds[..., ::-1], flipped, folder / "kindsTr" / f"{case}.nii.gz")
    request = DeriveObjectsRequest(dataset="1", kinds={1: "box", 2: "crate"}, width=1, workers=1)
    drain(derive_objects(workspace_of(folder), request))
    assert set(np.unique(labels(folder, "a")[balls() == 2])) == {3, 4}
    elsewhere = GRID.model_copy(update={"origin": (500.0, 0.0, 0.0)})
    write_labels(kinds, elsewhere, folder / "kindsTr" / "a.nii.gz")
    with pytest.raises(DatasetError, match="mask of kinds kindsTr/a.nii.gz show different places"):
        drain(derive_objects(workspace_of(folder), request))


def new_case(folder: Path, name: str, objects: np.ndarray, kinds: dict[int, str]) -> NewCase:
    """A case as the dock hands it on."""
    image = np.random.default_rng(0).normal(size=objects.shape).astype(np.float32)
    return NewCase(folder, name, [image], objects, GRID, {}, {}, ("grey",), ".nii.gz", kinds)


def test_a_case_from_a_window_is_kept_as_objects_and_learnt_as_cores_and_borders(folder: Path) -> None:
    drain(add_object_case(new_case(folder, "d", balls(7), {7: "box", 8: "box"})))
    assert set(np.unique(read_objects(folder / "objectsTr" / "d.nii.gz")[0])) == {0, 7, 8}
    assert set(np.unique(labels(folder, "d"))) == {0, 1, 2}
    assert foreground_fits(folder, "d")
    assert look_at_drawn(folder) == DrawnObjects()
    assert read_info(folder).num_training == len(survey(folder)[0].cases) == 4


def test_a_dataset_begins_with_a_case_of_objects(folder: Path) -> None:
    fresh = folder.parent / "Dataset002_Fresh"
    drain(add_object_case(new_case(fresh, "a", balls(), {1: "seed", 2: "seed"})))
    scheme = object_scheme(fresh)
    assert scheme.kinds == {"seed": (1, 2)}
    assert scheme.scores  # the width was measured
    assert look_at_drawn(fresh) == DrawnObjects()
    with pytest.raises(DatasetError, match="no object"):
        drain(add_object_case(new_case(folder.parent / "Dataset003_Empty", "a", 0 * balls(), {})))


def test_corrected_objects_replace_those_of_a_case_and_the_old_ones_are_kept(folder: Path) -> None:
    corrected = balls()
    corrected[corrected == 2] = 1
    path = drain(correct_objects(folder, "a", corrected, {}))
    assert np.array_equal(read_objects(path)[0], corrected)
    assert foreground_fits(folder, "a")
    (entry,) = cases_in_trash(folder)
    assert {part.name for part in entry.path.iterdir() if part.is_dir()} == {"objectsTr", "labelsTr"}
    with pytest.raises(DatasetError, match="voxels"):
        drain(correct_objects(folder, "a", corrected[:2], {}))


def test_objects_of_several_kinds_are_corrected_with_their_kinds_and_the_classes_beside_stay(folder: Path) -> None:
    kinds = np.where(balls() == 1, 1, np.where(balls() == 2, 2, 0)).astype(np.uint8)
    kinds[0] = 3
    (folder / "kindsTr").mkdir()
    for case in "abc":
        write_labels(kinds, GRID, folder / "kindsTr" / f"{case}.nii.gz")
    request = DeriveObjectsRequest(dataset="1", kinds={1: "box", 2: "crate"}, classes={"floor": 3}, width=1, workers=1)
    drain(derive_objects(workspace_of(folder), request))
    assert object_kinds(folder, "a", balls(), GRID) == {1: "box", 2: "crate"}
    drain(correct_objects(folder, "a", balls(), {1: "crate", 2: "crate"}))
    found = labels(folder, "a")
    assert set(np.unique(found[balls() != 0])) == {3, 4}
    assert (found[0] == 5).all()
    with pytest.raises(DatasetError, match="kind of the objects 1, 2 is not known"):
        drain(correct_objects(folder, "a", balls(), {}))
    with pytest.raises(DatasetError, match="ordinary classes beside its objects"):
        drain(add_object_case(new_case(folder, "d", balls(), {1: "box", 2: "box"})))
