"""Preprocessed cases come back as they were written, whatever their size and name; damaged ones are told."""

from __future__ import annotations

import numpy as np
import pytest

import nasty
from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.pickles import write_pickle
from napari_nnunet.formats.preprocessed import cases
from napari_nnunet.formats.preprocessed.cases import case_names, open_case, store_case


def write(folder, name="a", shape=(1, 5, 6, 7), patch=(4, 4, 4), seed=0):
    data = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    labels = (data[:1] > 0).astype(np.int16) - 1
    store_case(folder, name, data, labels, {"shape": shape}, patch=patch, staging=folder)
    return data, labels


def write_earlier(folder, name="a", **changes):
    """Write a case in nnU-Net's earlier format: an archive."""
    data, labels = write(folder, name, **changes)
    np.savez_compressed(folder / f"{name}.npz", data=data, seg=labels)
    for suffix in (".b2nd", "_seg.b2nd"):
        (folder / f"{name}{suffix}").unlink()
    return data, labels


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((1, 1, 1, 1), (8, 8, 8)), ((3, 1, 6, 7), (4, 4)), ((2, 40, 3, 5), (4, 4)), ((1, 5, 200, 7), (1, 300, 2))],
)
@pytest.mark.parametrize("name", ["a", "Fall ä 1", "a.b", "x_seg"])
def test_cases_of_any_shape_and_name_come_back(tmp_path, shape, patch, name):
    data, labels = write(tmp_path, name, shape, patch)
    case = open_case(tmp_path, name)
    np.testing.assert_array_equal(case.data[:], data)
    np.testing.assert_array_equal(case.labels[:], labels)
    assert case.read_properties()["shape"] == shape
    assert case_names(tmp_path) == [name]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        p.name for p in cases.preprocessed_files(tmp_path, name)
    )


def test_arrays_that_are_views_are_written_in_their_order(tmp_path):
    data = np.arange(210, dtype=np.float32).reshape(7, 6, 5, 1).T
    store_case(tmp_path, "a", data, (data[:, ::-1] > 9).astype(np.int16), {}, patch=(4, 4, 4), staging=tmp_path)
    np.testing.assert_array_equal(open_case(tmp_path, "a").data[:], data)
    np.testing.assert_array_equal(open_case(tmp_path, "a").labels[:], data[:, ::-1] > 9)


def test_a_case_that_is_written_again_is_replaced(tmp_path):
    write(tmp_path, shape=(1, 5, 6, 7))
    data, _ = write(tmp_path, shape=(2, 3, 9, 4), seed=1)
    np.testing.assert_array_equal(open_case(tmp_path, "a").data[:], data)


def test_labels_are_told_from_cases_by_the_image_they_belong_to(tmp_path):
    for name in ("b", "a_seg", "c"):
        write(tmp_path, name)
    write_earlier(tmp_path, "d")
    (tmp_path / ".e.b2nd.partial-1-abc.b2nd").touch()
    assert case_names(tmp_path) == ["a_seg", "b", "c", "d"]


@pytest.mark.parametrize("unpacked", [False, True])
def test_a_case_of_the_earlier_format_comes_back_packed_or_not(tmp_path, unpacked):
    data, labels = write_earlier(tmp_path)
    if unpacked:
        data = data + 1  # what is unpacked comes first
        np.save(tmp_path / "a.npy", data)
        np.save(tmp_path / "a_seg.npy", labels)
    case = open_case(tmp_path, "a")
    np.testing.assert_array_equal(case.data, data)
    np.testing.assert_array_equal(case.labels, labels)


@pytest.mark.parametrize("file", ["a.b2nd", "a_seg.b2nd", "a.pkl"])
@pytest.mark.parametrize("content", [None, b"", b"x" * 200])
def test_a_file_that_is_missing_or_something_else_is_told_with_its_case(tmp_path, file, content):
    write(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(DatasetError, match=r"\ba\b"):
        open_case(tmp_path, "a").read_properties()


def test_an_archive_damaged_anywhere_is_read_or_refused(tmp_path):
    write_earlier(tmp_path)
    refused = 0
    for content in nasty.damaged((tmp_path / "a.npz").read_bytes(), count=25):
        (tmp_path / "a.npz").write_bytes(content)
        try:
            open_case(tmp_path, "a")
        except DatasetError:
            refused += 1
    assert refused > 30


def test_properties_that_are_no_dictionary_are_refused(tmp_path):
    write(tmp_path)
    cases.write_pickle(tmp_path / "a.pkl", [1, 2], staging=tmp_path)
    with pytest.raises(DatasetError, match="does not contain a dictionary"):
        open_case(tmp_path, "a").read_properties()


# --- segmentations of the previous stage ------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "patch"), [((1, 1, 1), (8, 8, 8)), ((5, 6, 7), (4, 4)), ((9, 2, 30), (4, 4, 4))])
def test_a_segmentation_for_the_next_stage_comes_back(tmp_path, shape, patch):
    labels = (np.arange(np.prod(shape)) % 300).astype(np.uint16).reshape(shape)
    cases.write_next_stage(tmp_path, "Fall ä", labels, patch)
    np.testing.assert_array_equal(cases.read_next_stage(tmp_path, "Fall ä")[:], labels)
    assert cases.next_stage_file(tmp_path, "Fall ä") == tmp_path / "Fall ä.b2nd"


def test_a_segmentation_for_the_next_stage_is_read_in_the_earlier_format_too(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", seg=np.eye(3, dtype=np.uint8))
    np.testing.assert_array_equal(cases.read_next_stage(tmp_path, "a"), np.eye(3))


@pytest.mark.parametrize("ending", [".b2nd", ".npz"])
@pytest.mark.parametrize("content", [b"", b"x" * 200, b"PK\x03\x04" + b"x" * 200])
def test_a_damaged_segmentation_of_the_previous_stage_is_named(tmp_path, ending, content):
    (tmp_path / f"a{ending}").write_bytes(content)
    with pytest.raises(DatasetError, match=f"a{ending} cannot be read"):
        cases.read_next_stage(tmp_path, "a")


def test_a_missing_segmentation_of_the_previous_stage_is_told(tmp_path):
    assert cases.next_stage_file(tmp_path, "a") is None
    with pytest.raises(DatasetError, match="segmentation of a is missing"):
        cases.read_next_stage(tmp_path, "a")


def test_removing_a_case_leaves_those_whose_names_begin_alike(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "a_seg_2")
    np.savez(tmp_path / "a.npz", data=0, seg=0)
    cases.remove_old_format(tmp_path, "a")
    assert case_names(tmp_path) == ["a", "a_seg_2"]
    cases.remove_case(tmp_path, "a")
    cases.remove_case(tmp_path, "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a_seg_2.b2nd", "a_seg_2.pkl", "a_seg_2_seg.b2nd"]


def test_a_part_of_an_array_that_is_damaged_is_named_when_it_is_read(tmp_path):
    write(tmp_path, shape=(1, 30, 40, 50), patch=(20, 20, 20))
    cases.write_next_stage(tmp_path, "b", np.arange(24_000, dtype=np.uint16).reshape(20, 30, 40), (8, 8, 8))
    refused = 0
    for path, read in (
        (tmp_path / "a.b2nd", lambda: open_case(tmp_path, "a").data),
        (tmp_path / "a_seg.b2nd", lambda: open_case(tmp_path, "a").labels),
        (tmp_path / "b.b2nd", lambda: cases.read_next_stage(tmp_path, "b")),
    ):
        whole = path.read_bytes()
        for content in nasty.damaged(whole, count=20):
            path.write_bytes(content)
            for use in (lambda array: array[..., 1:3], np.asarray):
                try:
                    use(read())
                except DatasetError as error:
                    refused += str(tmp_path) in error.message
        path.write_bytes(whole)
    assert refused > 50


@pytest.mark.parametrize("unpacked", [False, True])
def test_damage_shows_in_the_earlier_format_too(tmp_path, unpacked):
    write(tmp_path)
    found = cases.open_case(tmp_path, "a")
    data, seg = np.asarray(found.data), np.asarray(found.labels)
    cases.remove_case(tmp_path, "a")
    write_pickle(tmp_path / "a.pkl", {})
    np.savez_compressed(tmp_path / "a.npz", data=data, seg=seg)
    if unpacked:
        np.save(tmp_path / "a.npy", data)
        np.save(tmp_path / "a_seg.npy", seg)
    assert cases.damage_of(tmp_path, "a") == ""
    for name in ("a.npy", "a_seg.npy") if unpacked else ("a.npz",):
        path = tmp_path / name
        whole = path.read_bytes()
        for content in (b"", b"no such file", whole[: len(whole) // 2]):
            path.write_bytes(content)
            assert f"{name} cannot be read (" in cases.damage_of(tmp_path, "a")
            with pytest.raises(DatasetError, match=r"are damaged \(a\)|is damaged"):
                cases.require_undamaged(tmp_path, ["a"])
            with pytest.raises(DatasetError, match=r"The preprocessed case a .* Preprocess the case again\."):
                cases.open_case(tmp_path, "a")
        path.write_bytes(whole)
    if not unpacked:
        np.savez_compressed(tmp_path / "a.npz", data=data)
        assert cases.damage_of(tmp_path, "a") == "a.npz has no array seg"


def test_damage_shows_in_the_first_bytes_and_the_size(tmp_path):
    write(tmp_path)
    assert cases.damage_of(tmp_path, "a") == ""
    for name in ("a.b2nd", "a_seg.b2nd", "a.pkl"):
        path = tmp_path / name
        whole = path.read_bytes()
        damaged = (
            [b"", whole[: len(whole) // 2], whole[:-1]]
            if name == "a.pkl"
            else [b"", b"no such file", b"x" * len(whole), whole[: len(whole) // 2]]
        )
        for content in damaged:
            path.write_bytes(content)
            assert name in cases.damage_of(tmp_path, "a")
        path.unlink()
        if name != "a.b2nd":  # without it, it is a case of the earlier format
            assert "cannot be read" in cases.damage_of(tmp_path, "a")
        path.write_bytes(whole)
