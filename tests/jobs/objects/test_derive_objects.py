"""Numbered objects become a dataset that nnU-Net can learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.dataset.objects import SOURCES as DRAWN
from napari_nnunet.formats.dataset.objects import object_scheme
from napari_nnunet.formats.dataset.raw_writer import create_dataset
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.verify import verify
from napari_nnunet.jobs.objects.derive import derive_objects
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.dataset import DeriveObjectsRequest, VerifyRequest

pytestmark = pytest.mark.usefixtures("in_one_process")

PLANE = Geometry(spacing=(1.0, 1.0))


def squares(offset: int = 0) -> np.ndarray:
    """Four squares of 8 x 8, of which two touch."""
    objects = np.zeros((30, 40), dtype=np.uint16)
    for number, (y, x) in enumerate([(2, 2), (2, 10), (16, 4), (18, 24)], start=1 + offset):
        objects[y : y + 8, x : x + 8] = number
    return objects


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with a dataset of three pictures and their objects."""
    workspace = Workspace.at(tmp_path)
    folder = workspace.raw / "Dataset001_Squares"
    create_dataset(folder, ["grey"], {"background": 0, "object": 1}, ".tif")
    (folder / "objectsTr").mkdir()
    (folder / "kindsTr").mkdir()
    for case, offset in (("a", 0), ("b", 10), ("c", 0)):
        picture = np.random.default_rng(ord(case)).integers(0, 255, (30, 40), dtype=np.uint8)
        write_labels(picture, PLANE, folder / "imagesTr" / f"{case}_0000.tif")
        write_labels(squares(offset), PLANE, folder / "objectsTr" / f"{case}.tif")
    return workspace


def folder_of(workspace: Workspace) -> Path:
    """The dataset."""
    return workspace.raw / "Dataset001_Squares"


def texts(events: list[object], level: str = "warning") -> str:
    """What notes of a level say."""
    return "\n".join(event.text for event in events if isinstance(event, Note) and event.level == level)


def test_cores_and_borders_are_drawn_and_dataset_json_says_how(workspace: Workspace) -> None:
    scheme = drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1", width=2)))
    assert scheme == object_scheme(folder_of(workspace))
    assert (scheme.kinds, scheme.width, scheme.unit) == ({"object": (1, 2)}, 2.0, 1.0)
    labels, _ = read_labels(folder_of(workspace) / "labelsTr" / "b.tif")
    assert np.bincount(labels.ravel()).tolist() == [30 * 40 - 4 * 64, 4 * 16, 4 * 48]
    content = json.loads((folder_of(workspace) / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {"background": 0, "object core": 1, "object border": 2}
    assert not drain(verify(workspace, VerifyRequest(dataset="1"))).errors


def test_the_width_is_measured_where_none_is_given(workspace: Workspace) -> None:
    scheme = drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1")))
    assert set(scheme.scores) == {1.0, 1.5, 2.0, 3.0}
    assert scheme.width == 3.0
    assert scheme.scores[3.0] == pytest.approx(1.0)


def test_deriving_again_changes_nothing(workspace: Workspace) -> None:
    drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1")))
    before = {p: p.read_bytes() for p in folder_of(workspace).rglob("*") if p.is_file() and p.name != DRAWN}
    drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1")))
    assert {p: p.read_bytes() for p in folder_of(workspace).rglob("*") if p.is_file() and p.name != DRAWN} == before


def test_kinds_classes_and_what_nobody_annotated_come_from_a_second_mask(workspace: Workspace) -> None:
    for case in "abc":
        mask = np.zeros((30, 40), dtype=np.uint8)
        mask[:12, :9] = 5  # the first square for the most part, and a bit of the second
        mask[:12, 10:] = mask[16:] = 7
        mask[12:14] = 9
        mask[14:16] = 255
        write_labels(mask, PLANE, folder_of(workspace) / "kindsTr" / f"{case}.tif")
    request = DeriveObjectsRequest(
        dataset="1", kinds={5: "cell", 7: "debris"}, classes={"wall": 9}, ignore=255, width=1
    )
    scheme = drain(derive_objects(workspace, request))
    assert scheme.kinds == {"cell": (1, 2), "debris": (3, 4)}
    content = json.loads((folder_of(workspace) / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {
        "background": 0, "cell core": 1, "cell border": 2, "debris core": 3, "debris border": 4, "wall": 5, "ignore": 6,
    }  # fmt: skip
    labels, _ = read_labels(folder_of(workspace) / "labelsTr" / "a.tif")
    assert (labels[6, 6], labels[6, 9], labels[6, 14], labels[20, 28]) == (1, 2, 3, 3)
    assert set(np.unique(labels[12:14])) == {5}
    assert set(np.unique(labels[14:16])) == {6}


def kinds_table(workspace: Workspace, lines: list[str], *, comma: str = ",") -> Path:
    """Write a table of kinds."""
    path = workspace.raw.parent / "kinds.csv"
    path.write_text("".join(f"{line}\n".replace(",", comma) for line in ["case,object,size,kind", *lines]))
    return path


def every(kind: str = "debris") -> list[str]:
    """Lines for all objects; the first of each case is of another kind than the rest."""
    return [
        f"{case},{n + offset},64,{'cell' if n == 1 else kind}"
        for case, offset in (("a", 0), ("b", 10), ("c", 0))
        for n in range(1, 5)
    ]


@pytest.mark.parametrize("comma", [",", ";", "\t"])
def test_a_table_says_of_which_kind_each_object_is(workspace: Workspace, comma: str) -> None:
    table = kinds_table(workspace, [*every(), "z,7,64,cell"], comma=comma)
    events: list[object] = []
    for _ in range(2):  # also where it was drawn before
        scheme = drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1", table=table)), events.append)
    assert scheme.kinds == {"cell": (1, 2), "debris": (3, 4)}
    labels, _ = read_labels(folder_of(workspace) / "labelsTr" / "b.tif")
    objects, _ = read_labels(folder_of(workspace) / "objectsTr" / "b.tif")
    assert set(np.unique(labels[objects == 11])) == {1, 2}
    assert set(np.unique(labels[objects > 11])) == {3, 4}
    assert "1 lines of kinds.csv name objects that no mask has" in texts(events)


@pytest.mark.parametrize(
    ("lines", "more", "words"),
    [
        (every()[1:], {}, "does not say of which kind the objects 1 of a are"),
        ([*every(), "a,2,64,cell"], {}, "object 2 of a is said to be debris and cell"),
        ([*every(), "a,two,64,cell"], {}, "must hold the numbers of objects"),
        ([*every(), "a,9,64,"], {}, "object 9 of a has no kind"),
        ([], {}, "has no line"),
        (every(), {"kinds": {1: "cell"}}, "A table says which kinds there are"),
    ],
)
def test_a_table_that_leaves_something_open_is_refused(
    workspace: Workspace, lines: list[str], more: dict, words: str
) -> None:
    request = DeriveObjectsRequest(dataset="1", table=kinds_table(workspace, lines), **more)
    with pytest.raises((DatasetError, SettingsError), match=words):
        drain(derive_objects(workspace, request))


def test_a_table_does_not_take_the_place_of_masks_that_people_drew(workspace: Workspace) -> None:
    write_labels(np.ones((30, 40), np.uint8), PLANE, folder_of(workspace) / "kindsTr" / "a.tif")
    with pytest.raises(SettingsError, match="1 case of Dataset001_Squares has masks in kindsTr"):
        drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1", table=kinds_table(workspace, every()))))


@pytest.mark.parametrize(
    ("request_fields", "words"),
    [
        ({"kinds": {1: "a", 2: "b"}}, "3 of 3 cases have no mask in kindsTr"),
        ({"classes": {"wall": 3}}, "no mask in kindsTr"),
    ],
)
def test_kinds_without_masks_of_kinds_are_refused(workspace: Workspace, request_fields: dict, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1", **request_fields)))


def test_values_that_mean_two_things_are_refused(workspace: Workspace) -> None:
    for case in "abc":
        write_labels(np.ones((30, 40), dtype=np.uint8), PLANE, folder_of(workspace) / "kindsTr" / f"{case}.tif")
    with pytest.raises(SettingsError, match=r"\[1\] is named twice"):
        drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1", kinds={1: "a"}, classes={"wall": 1})))


def test_objects_of_no_kind_are_named(workspace: Workspace) -> None:
    for case in "abc":
        write_labels(np.full((30, 40), 2, np.uint8), PLANE, folder_of(workspace) / "kindsTr" / f"{case}.tif")
    with pytest.raises(DatasetError, match=r"a\.tif: the objects 1, 2, 3, 4 lie where the mask of kinds has no kind"):
        drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1", kinds={1: "a"})))


def test_what_is_odd_about_the_objects_is_said(workspace: Workspace) -> None:
    objects = squares()
    objects[28, 38] = 1  # far from the rest of object 1
    objects[14, 38] = 9  # one voxel
    write_labels(objects, PLANE, folder_of(workspace) / "objectsTr" / "a.tif")
    write_labels(np.zeros_like(objects), PLANE, folder_of(workspace) / "objectsTr" / "c.tif")
    events: list[object] = []
    drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1", width=2)), events.append)
    assert "1 case has no object: c" in texts(events)
    assert "1 of 9 objects lies in several pieces (a)" in texts(events)
    assert "1 of 9 objects is one voxel large (a): all of it becomes core, without a border" in texts(events)
    assert "1 object is thinner than its border" in texts(events, "info")


def test_classes_given_as_objects_are_doubted(workspace: Workspace) -> None:
    for case in "abc":
        write_labels((squares() > 0).astype(np.uint8), PLANE, folder_of(workspace) / "objectsTr" / f"{case}.tif")
    events: list[object] = []
    drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1")), events.append)
    assert "If the masks hold classes instead of numbered objects, import them as classes" in texts(events)


def test_classes_that_fill_every_picture_are_doubted_and_objects_that_do_not_are_not(workspace: Workspace) -> None:
    stripes = np.repeat(np.arange(1, 6, dtype=np.uint8), squares().shape[0] // 5 + 1)[: squares().shape[0], None]
    said = []
    for drawn in (squares(), np.broadcast_to(stripes, squares().shape).copy()):
        for case in "abc":
            write_labels(drawn, PLANE, folder_of(workspace) / "objectsTr" / f"{case}.tif")
        events: list[object] = []
        drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1")), events.append)
        said.append(texts(events))
    assert "import them as classes" not in said[0]
    assert "Every picture has 5 objects, which cover most of it. If the masks hold classes" in said[1]


def test_a_dataset_without_objects_is_refused(workspace: Workspace) -> None:
    for path in (folder_of(workspace) / "objectsTr").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="Dataset001_Squares has no numbered objects"):
        drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1")))


def test_masks_that_are_empty_everywhere_are_refused(workspace: Workspace) -> None:
    for case in "abc":
        write_labels(np.zeros((30, 40), np.uint8), PLANE, folder_of(workspace) / "objectsTr" / f"{case}.tif")
    with pytest.raises(DatasetError, match="hold only 0"):
        drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1")))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"kinds": {}}, "kinds"),
        ({"kinds": {"a": [1, 2]}, "width": 0, "unit": 1}, "width"),
        ({"kinds": {"a": [1, 9]}, "width": 2, "unit": 1}, "the classes are 1"),
        ({"kinds": {"a": [1, 1]}, "width": 2, "unit": 1}, "a class of its own"),
        ("nonsense", "cannot be read"),
    ],
)
def test_a_key_that_was_spoiled_by_hand_is_named(workspace: Workspace, content: object, words: str) -> None:
    path = folder_of(workspace) / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "napari_nnunet_objects": content}))
    with pytest.raises(DatasetError, match=f"napari_nnunet_objects.*{words}"):
        object_scheme(folder_of(workspace))
