"""Probabilities of several models are joined; what does not fit together is refused before work."""

from __future__ import annotations

import json
import math
import re
import zipfile
from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk

from choices import (
    DATASET_JSON,
    SHAPE,
    member_folder,
    notes,
    run_verb,
)
from helpers import read_probabilities
from napari_nnunet.errors import ImageError, NnunetError, SettingsError
from napari_nnunet.events import CaseFailed, drain
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.results.probabilities import write_probabilities, write_properties
from napari_nnunet.jobs.choosing.ensemble import ensemble_folders
from napari_nnunet.processes import pool
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import EnsembleRequest
from test_grid import turned_copy


def _asked(folder, *names, **more):
    return EnsembleRequest.of(sources=[folder / name for name in names], target=folder / "o", **more)


def test_members_are_joined_where_only_properties_tell_the_grid(tmp_path):
    first, second = (member_folder(tmp_path / name, seed=i) for i, name in enumerate("xy"))
    words = ("-i", tmp_path / "x", tmp_path / "y", "-o", tmp_path / "o", "--save_npz", "--uncertainty")
    assert run_verb("ensemble", *words, "--weights", 1, 3) == 0
    mean = (first["a"] + 3 * second["a"]) / 4
    np.testing.assert_allclose(read_probabilities(tmp_path / "o" / "a.npz"), mean, atol=1e-6)
    labels, geometry = read_labels(tmp_path / "o" / "a.nii.gz")
    np.testing.assert_array_equal(labels, mean.argmax(axis=0))
    assert geometry.origin == (3.0, 2.0, 1.0)
    entropy = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "o" / "entropy" / "b.nii.gz")))
    assert entropy.shape == SHAPE and 0 < entropy.max() <= 1
    assert json.loads((tmp_path / "o" / "ensemble.json").read_text(encoding="utf-8"))["weights"] == [1.0, 3.0]


WAYS = [(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]


def _store(folder, probabilities, geometry):
    write_probabilities(np.ascontiguousarray(probabilities), folder / "a.npz")
    write_properties(geometry.properties(), folder / "a.pkl")


@pytest.mark.parametrize("way", WAYS)
def test_a_member_stored_any_way_is_joined_on_the_grid_of_the_first(tmp_path, way):
    first, second = (member_folder(tmp_path / name, ("a",), seed=i) for i, name in enumerate("xy"))
    place = Geometry(spacing=(3.0, 2.0, 1.0), origin=(3.0, 2.0, 1.0), direction=tuple(np.eye(3).ravel()))
    _store(tmp_path / "x", first["a"], place)
    stored = [turned_copy(channel, place, *way) for channel in second["a"]]
    _store(tmp_path / "y", np.stack([array for array, _ in stored]), stored[0][1])
    drain(ensemble_folders(_asked(tmp_path, "x", "y")))
    labels, geometry = read_labels(tmp_path / "o" / "a.nii.gz")
    np.testing.assert_array_equal(labels, ((first["a"] + second["a"]) / 2).argmax(axis=0))
    assert geometry.origin == (3.0, 2.0, 1.0)


@pytest.mark.parametrize("whose", ["x", "y"])
def test_a_segmentation_that_was_saved_in_another_order_does_not_place_probabilities(tmp_path, whose):
    """The result would be mirrored: the file tells how it was saved, not how the probabilities beside it lie."""
    first, second = (member_folder(tmp_path / name, ("a",), seed=i) for i, name in enumerate("xy"))
    place = Geometry(spacing=(1.0, 1.0, 1.0), origin=(3.0, 2.0, 1.0), direction=tuple(np.eye(3).ravel()))
    labels, turned = turned_copy(np.zeros(SHAPE, np.uint8), place, (0, 1, 2), (False, False, True))
    write_labels(np.ascontiguousarray(labels), turned, tmp_path / whose / "a.nii.gz")
    drain(ensemble_folders(_asked(tmp_path, "x", "y")))
    labels, geometry = read_labels(tmp_path / "o" / "a.nii.gz")
    np.testing.assert_array_equal(labels, ((first["a"] + second["a"]) / 2).argmax(axis=0))
    assert geometry.direction == place.direction
    assert geometry.origin == place.origin


def test_flat_medical_images_are_joined_where_only_properties_tell_the_grid(tmp_path):
    flat = Geometry(spacing=(2.0, 1.0), origin=(3.0, 2.0), direction=(1.0, 0.0, 0.0, 1.0))
    arrays = [member_folder(tmp_path / name, ("a",), seed=i, shape=(1, 10, 9)) for i, name in enumerate("xy")]
    for name, array in zip("xy", arrays, strict=True):
        _store(tmp_path / name, array["a"], flat)
    drain(ensemble_folders(_asked(tmp_path, "x", "y")))
    labels, geometry = read_labels(tmp_path / "o" / "a.nii.gz")
    np.testing.assert_array_equal(labels, ((arrays[0]["a"] + arrays[1]["a"]) / 2).argmax(axis=0)[0])
    assert geometry.spacing == (2.0, 1.0)


def test_a_member_from_elsewhere_is_refused(tmp_path):
    first, _ = (member_folder(tmp_path / name, ("a",), seed=i) for i, name in enumerate("xy"))
    away = Geometry(spacing=(1.0, 1.0, 1.0), origin=(3.0, 52.0, 1.0), direction=tuple(np.eye(3).ravel()))
    _store(tmp_path / "y", first["a"], away)
    with pytest.raises(NnunetError, match=r"y/a\.npz and .*x/a\.npz do not lie on the same grid: places 50 mm apart"):
        drain(ensemble_folders(_asked(tmp_path, "x", "y")))
    # for those who know that only the headers differ
    done, said = notes(ensemble_folders(_asked(tmp_path, "x", "y", ignore_geometry=True)))
    assert done.cases == ("a",)
    assert f"a: according to their headers, the probabilities in {tmp_path / 'y'} lie elsewhere than those in " in said
    assert "x (places 50 mm apart); they were joined voxel by voxel." in said


@pytest.mark.parametrize(
    ("way", "told"),
    [
        (
            ((0, 1, 2), (False, False, True)),
            "are stored in another orientation than those in X (mirrored along x); they were",
        ),
        (
            ((2, 0, 1), (False, False, False)),
            "have another shape than those in X and were reoriented by their headers (its",
        ),
        (((0, 1, 2), (False, False, False)), ""),
    ],
)
def test_members_that_lie_otherwise_are_named_where_geometry_is_ignored(tmp_path, way, told):
    first, second = (member_folder(tmp_path / name, ("a",), seed=i) for i, name in enumerate("xy"))
    place = Geometry(spacing=(3.0, 2.0, 1.0), origin=(3.0, 2.0, 1.0), direction=tuple(np.eye(3).ravel()))
    _store(tmp_path / "x", first["a"], place)
    stored = [turned_copy(channel, place, *way) for channel in second["a"]]
    _store(tmp_path / "y", np.stack([array for array, _ in stored]), stored[0][1])
    _, said = notes(ensemble_folders(_asked(tmp_path, "x", "y", ignore_geometry=True)))
    said = said.replace(str(tmp_path / "x"), "X")
    assert told in said and (told != "") == ("probabilities in" in said)


@pytest.mark.parametrize("workers", [1, 2])
def test_cases_are_joined_in_processes_as_without(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(pool, "_WORTH_PROCESSES", 0)
    first, second = (member_folder(tmp_path / name, seed=i) for i, name in enumerate("xy"))
    drain(ensemble_folders(_asked(tmp_path, "x", "y", workers=workers)))
    for name in "ab":
        expected = ((first[name] + second[name]) / 2).argmax(axis=0)
        np.testing.assert_array_equal(read_labels(tmp_path / "o" / f"{name}.nii.gz")[0], expected)


def _break(tmp_path, what):
    y = tmp_path / "y"
    if what == "case":
        (y / "b.npz").unlink()
    elif what == "shape":
        member_folder(y, ("b",), shape=(6, 10, 8))
    elif what == "classes":
        member_folder(y, ("b",), heads=4)
    elif what == "truncated":
        (y / "b.npz").write_bytes((y / "b.npz").read_bytes()[:100])
    elif what == "other content":
        np.savez_compressed(y / "b.npz", other=np.zeros(3))
    elif what == "labels":
        content = {**DATASET_JSON, "labels": {"background": 0, "lesion": 1, "organ": 2}}
        (y / "dataset.json").write_text(json.dumps(content))
    elif what == "dataset.json":
        (y / "dataset.json").unlink()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("case", r"y lacks b\.npz.*--save_probabilities"),
        ("labels", "same classes"),
        ("dataset.json", "no dataset.json"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(tmp_path, what, words):
    for i, name in enumerate("xy"):
        member_folder(tmp_path / name, seed=i)
    _break(tmp_path, what)
    with pytest.raises(NnunetError, match=words):
        drain(ensemble_folders(_asked(tmp_path, "x", "y")))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("shape", r"has shape \(3, 6, 10, 8\).*\(3, 6, 10, 9\)"),
        ("classes", "has 4 classes, but dataset.json defines 3"),
        ("truncated", "not a complete probabilities file"),
        ("other content", "no 'probabilities'"),
    ],
)
def test_one_case_that_does_not_fit_together_does_not_end_the_others(tmp_path, what, words):
    for i, name in enumerate("xy"):
        member_folder(tmp_path / name, seed=i)
    _break(tmp_path, what)
    events = []
    found = drain(ensemble_folders(_asked(tmp_path, "x", "y")), events.append)
    (failed,) = [event for event in events if isinstance(event, CaseFailed)]
    assert failed.case == "b"
    assert re.search(words, failed.message)
    assert found.cases == ("a",)
    assert sorted(path.name for path in (tmp_path / "o").glob("*.nii.gz")) == ["a.nii.gz"]
    assert (tmp_path / "o" / "ensemble.json").is_file()
    for name in "xy":
        (tmp_path / name / "a.npz").write_bytes(b"nothing")
    with pytest.raises(NnunetError, match="do not fit together"):
        drain(ensemble_folders(_asked(tmp_path, "x", "y")))


@pytest.mark.parametrize(
    ("folders", "vote", "words"),
    [
        (["x"], {}, "at least two members"),
        (["x", "x"], {}, "more than once"),
        (["x", "o"], {}, "one of the inputs"),
        (["x", "y"], {"weights": (1.0,)}, "2 members but 1 weight"),
        (["x", "y"], {"weights": (0.0, 0.0)}, "not all zero"),
        (["x", "y"], {"weights": (-1.0, 2.0)}, "≥ 0 and not all zero"),
        (["x", "y"], {"temperature": 0.0}, "cannot be 0.0"),
        (["x", "y"], {"temperature": math.inf}, "cannot be inf"),
    ],
)
def test_a_senseless_ensemble_is_refused(tmp_path, folders, vote, words):
    for i, name in enumerate("xyo"):
        member_folder(tmp_path / name, seed=i)
    with pytest.raises(SettingsError, match=words):
        drain(ensemble_folders(_asked(tmp_path, *folders, **vote)))


def test_a_huge_deflated_member_is_read_in_pieces_and_its_end_is_missed(tmp_path):
    member_folder(tmp_path / "x")
    path = tmp_path / "x" / "a.npz"
    with zipfile.ZipFile(path) as archive:
        content = archive.read("probabilities.npy")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("probabilities.npy", content[:-8])
    with pytest.raises(ImageError, match="ends too early"):
        read_probabilities(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_no_numbers_decide_nothing(tmp_path, value):
    first, second = (tmp_path / name for name in "xy")
    member_folder(first, ("a",))
    probabilities = member_folder(second, ("a",), seed=1)["a"].copy()
    probabilities[1, 0, 0, 0] = value
    write_probabilities(probabilities, second / "a.npz")
    with pytest.raises(NnunetError, match="probabilities of member 2 hold values that are not numbers"):
        drain(ensemble_folders(EnsembleRequest(sources=(first, second), target=tmp_path / "o")))
