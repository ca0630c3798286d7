"""Numbered objects of images larger than memory: those of a prediction in memory, whatever the blocks are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from formats_large import ome_zarr
from helpers import Recipe, make_model, smooth_image
from napari_nnunet import load_model, predict, predict_image
from napari_nnunet.engine.large import blocks, parts
from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.events import Note, Painted, Progress, Stage
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.large.finished import open_finished

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = pytest.mark.usefixtures("known_arithmetic")
FAST = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False}
RULE = {"seed": 0.36, "inside": 0.5, "smallest": 4, "smallest_seed": 2, "neck": 0.2, "sure": 0.3}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Cut tiny volumes as large ones are: into awkward blocks, read in small pieces."""
    monkeypatch.setattr(blocks, "_MOST_VOXELS", 3000)
    monkeypatch.setattr(parts, "PIECE_VOXELS", 2000)
    monkeypatch.setattr(parts, "_SMALLEST", 4)


def object_model(root, *, kinds=1, unit=1.0, **recipe):
    """A tiny model with random weights that has learnt cores and borders, and rules of a validation."""
    names = ["cell", "debris"][:kinds]
    labels = {"background": 0}
    for i, name in enumerate(names):
        labels |= {f"{name} core": 2 * i + 1, f"{name} border": 2 * i + 2}
    folder = make_model(root, Recipe(labels=labels, **recipe)).folder
    path = folder / "dataset.json"
    scheme = {"kinds": {name: [2 * i + 1, 2 * i + 2] for i, name in enumerate(names)}, "width": 1.5, "unit": unit}
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "napari_nnunet_objects": scheme}))
    rules = {"rules": dict.fromkeys(names, RULE)}
    (folder / "fold_0" / "object_rules.json").write_text(json.dumps(rules))
    return load_model(folder)


def hollow(shape):
    """Return an image with an empty border of another width on two sides."""
    image = smooth_image(shape)
    image[..., -5:] = 0
    if len(shape) == 3:
        image[:, :3] = 0
    return image


def finest(path):
    return zarr.open(path / "0", mode="r")[:]


CASES = {
    "volume": ({}, (1.0, 1.0, 1.0), (24, 40, 50), (7, 11, 13)),
    "thick slices": ({"spacing": (5.0, 1.0, 1.0)}, (4.0, 0.7, 0.7), (14, 41, 53), (5, 16, 16)),
    "turned": ({"transpose": (2, 0, 1), "spacing": (1.2, 1.0, 1.0)}, (1.0, 1.0, 0.9), (20, 40, 36), (9, 13, 8)),
    "two kinds": ({"kinds": 2}, (1.0, 1.0, 1.0), (24, 40, 50), (7, 11, 13)),
    "picture": (
        {"patch": (16, 16), "spacing": (1.0, 1.0), "configuration": "2d"}, (1.3, 1.3), (140, 151), (29, 40),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_objects_are_those_of_a_prediction_in_memory(tmp_path, case):
    recipe, spacing, shape, chunk = CASES[case]
    model, image, said = object_model(tmp_path, **recipe), hollow(shape), []
    whole = predict(model, image, spacing=spacing, **FAST)
    target = tmp_path / "large.zarr"
    found = predict_image(model, image, target, spacing=spacing, chunk=chunk, on_event=said.append, **FAST)
    labels = finest(target)
    assert found.blocks > 3, "it was not cut"
    assert labels.max() == len(whole.kinds) > 10
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    np.testing.assert_array_equal(labels, whole.labels)
    assert labels.dtype == np.uint16
    each = {kind: list(whole.kinds.values()).count(kind) for kind in whole.kinds.values()}
    assert found.objects == each and found.counts == ()
    stages = [event.name for event in said if isinstance(event, Stage)]
    assert stages[-2:] == ["Finding objects", "Writing the result"]
    notes = [event.text for event in said if isinstance(event, Note)]
    assert any("take up to 0.0 GB of disk" in text and "Blocks show classes" in text for text in notes)
    assert "Found " + ", ".join(f"{n} x {kind}" for kind, n in each.items()) + "." in notes
    assert not target.with_name("large.zarr.unfinished").exists()


def test_the_result_says_that_its_values_number_objects_and_opens_without_class_names(tmp_path):
    model = object_model(tmp_path, kinds=2)
    found = predict_image(model, hollow((24, 40, 50)), tmp_path / "a.zarr", spacing=(1.0, 1.0, 1.0), **FAST)
    opened = open_finished(tmp_path / "a.zarr")
    assert opened.names == opened.colours == {}
    assert opened.origin["objects"] == [found.objects]
    assert list(found.objects) == ["cell", "debris"] and min(found.objects.values()) > 0


def test_classes_are_given_on_request(tmp_path):
    model, image = object_model(tmp_path), hollow((24, 40, 50))
    how = {"spacing": (1.0, 1.0, 1.0), "classes": True, **FAST}
    found = predict_image(model, image, tmp_path / "a.zarr", **how)
    np.testing.assert_array_equal(finest(tmp_path / "a.zarr"), predict(model, image, **how).labels)
    assert found.objects is None and sum(found.counts) == image.size


def test_classes_that_are_called_like_cores_and_borders_are_doubted(tmp_path):
    model, said = make_model(tmp_path, Recipe(labels={"background": 0, "cell core": 1, "cell border": 2})), []
    how = {"spacing": (1.0, 1.0, 1.0), "on_event": said.append, **FAST}
    predict_image(model, hollow((24, 40, 50)), tmp_path / "a.zarr", **how)
    assert any(isinstance(e, Note) and "are called like cores and borders" in e.text for e in said)


@pytest.mark.parametrize("ending", [".nii.gz", ".tif"])
def test_an_ordinary_file_has_the_objects_and_their_kinds_beside_it(tmp_path, ending):
    model, image = object_model(tmp_path, kinds=2), hollow((24, 40, 50))
    whole = predict(model, image, spacing=(1.0, 1.0, 1.0), **FAST)
    found = predict_image(model, image, tmp_path / f"a{ending}", spacing=(1.0, 1.0, 1.0), **FAST)
    assert found.path == tmp_path / f"a{ending}"
    np.testing.assert_array_equal(read_labels(found.path)[0], whole.labels)
    kinds = read_labels(tmp_path / "kinds" / found.path.name)[0]
    for value, kind in enumerate(found.objects, start=1):
        assert len(np.unique(whole.labels[kinds == value])) == found.objects[kind]


def test_time_points_are_numbered_each_by_itself(tmp_path):
    model = object_model(tmp_path)
    series = np.stack([hollow((12, 30, 34))[0], smooth_image((12, 30, 34), seed=3)[0]])
    how = {"spacing": (1.0, 1.0, 1.0), **FAST}
    found = predict_image(model, series, tmp_path / "a.zarr", axes="TZYX", chunk=(7, 11, 13), **how)
    labels = finest(tmp_path / "a.zarr")
    for frame, image in zip(labels, series, strict=True):
        np.testing.assert_array_equal(frame, predict(model, image[None], **how).labels)
    assert found.objects == {"cell": labels[0].max() + labels[1].max()}


class _StopError(Exception):
    pass


@pytest.mark.parametrize(("kind", "name"), [(Painted, ""), (Stage, "Finding objects"), (Stage, "Writing the result")])
def test_what_was_ended_is_continued_and_gives_the_same(tmp_path, kind, name):
    model = object_model(tmp_path)
    image = ome_zarr(tmp_path / "image.zarr", [smooth_image((20, 40, 40))[0]], unit="millimeter")

    def stop(event):
        if isinstance(event, kind) and name in ("", getattr(event, "name", "")):
            raise _StopError

    how, target = {"chunk": (7, 11, 13), **FAST}, tmp_path / "a.zarr"
    with pytest.raises(_StopError):
        predict_image(model, image, target, on_event=stop, **how)
    assert not target.exists()
    with pytest.raises(SettingsError, match=r"was begun with numbered objects \(now classes\)"):
        predict_image(model, image, target, carry_on=True, classes=True, **how)
    found = predict_image(model, image, target, carry_on=True, **how)
    assert found.kept >= 1
    whole = predict_image(model, image, tmp_path / "whole.zarr", **how)
    np.testing.assert_array_equal(finest(target), finest(tmp_path / "whole.zarr"))
    assert found.objects == whole.objects
    again = predict_image(model, image, target, carry_on=True, **how)
    assert (again.blocks, again.objects) == (0, whole.objects)
    target.with_name("a.zarr.unfinished").mkdir()
    (target.with_name("a.zarr.unfinished") / "left").touch()  # by a kill between the last two steps
    assert predict_image(model, image, target, carry_on=True, **how).objects == whole.objects
    assert not target.with_name("a.zarr.unfinished").exists()


def test_other_rules_do_not_continue_what_was_begun(tmp_path):
    model = object_model(tmp_path)
    image = ome_zarr(tmp_path / "image.zarr", [smooth_image((20, 40, 40))[0]], unit="millimeter")
    predict_image(model, image, tmp_path / "a.zarr", **FAST)
    (model.folder / "fold_0" / "object_rules.json").write_text('{"rules": {"cell": {"seed": 0.4}}}')
    with pytest.raises(SettingsError, match="made with other rules by which objects are found"):
        predict_image(load_model(model.folder), image, tmp_path / "a.zarr", carry_on=True, **FAST)


def test_a_disk_that_is_too_small_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    from collections import namedtuple

    free = namedtuple("usage", "total used free")(1 << 40, 1 << 40, 1000)
    monkeypatch.setattr("napari_nnunet.jobs.large.objects.numbering.shutil.disk_usage", lambda _: free)
    model, said = object_model(tmp_path), []
    with pytest.raises(ResourceError, match=r"take up to 0\.0 GB of disk until the result is there.*are free beside"):
        predict_image(
            model, hollow((24, 40, 50)), tmp_path / "a.zarr", spacing=(1.0, 1.0, 1.0), on_event=said.append, **FAST
        )
    assert not any(isinstance(event, Progress) for event in said)


def test_memory_that_is_too_small_for_a_few_planes_is_said_before_anything_is_computed(tmp_path):
    model = object_model(tmp_path)
    wide = np.broadcast_to(np.float32(1), (40, 20_000, 20_000))  # takes no memory
    with pytest.raises(ResourceError, match="Objects are found in a few planes of 20000 x 20000 voxels at a time"):
        predict_image(model, wide, tmp_path / "a.zarr", axes="ZYX", spacing=(1.0, 1.0, 1.0), memory_gb=3, **FAST)


def test_a_file_that_would_be_taken_for_a_part_of_the_result_is_refused(tmp_path):
    model = object_model(tmp_path, patch=(16, 16), spacing=(1.0, 1.0), configuration="2d")
    (tmp_path / "a.tif").touch()
    with pytest.raises(SettingsError, match=r"a\.tif already exists"):
        predict_image(model, hollow((60, 60)), tmp_path / "a.png", spacing=(1.0, 1.0), **FAST)
