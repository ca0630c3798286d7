"""Corrected voxels go into every level of a result, all of them or none, whatever ends the process."""

import numpy as np
import pytest

from formats_large import ome_zarr
from napari_nnunet.errors import ImageError, ResourceError, SettingsError
from napari_nnunet.formats.large import corrections
from napari_nnunet.formats.large.corrections import (
    PENDING,
    correct,
    corrected_voxels,
    finish_correction,
    gained_by_hand,
    read_region,
)

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
SHAPE = (9, 21, 30)
FACTORS = ((1, 1, 1), (1, 2, 2), (2, 4, 4))
BOX = ((2, 9), (3, 20), (5, 28))


@pytest.fixture(params=["0.4", "0.5"])
def result(tmp_path, request):
    """A result in the form of this program."""
    labels = np.random.default_rng(0).integers(0, 3, SHAPE, dtype=np.uint8)
    levels = [labels[:: f[0], :: f[1], :: f[2]] for f in FACTORS]
    path = ome_zarr(tmp_path / "r.zarr", levels, version=request.param, scales=[tuple(map(float, f)) for f in FACTORS])
    group = zarr.open_group(str(path), mode="r+")
    group.attrs["napari_nnunet"] = {"model": "m"}
    return path


def levels_of(path):
    group = zarr.open_group(str(path), mode="r")
    return [group[str(k)][:] for k in range(len(FACTORS))]


def corrected_region(path, seed=1, share=0.2):
    before = read_region(path, BOX)
    rng = np.random.default_rng(seed)
    after = np.where(rng.random(before.shape) < share, rng.integers(0, 3, before.shape, dtype=np.uint8), before)
    return before, after


def expected(labels, after):
    whole = labels.copy()
    whole[tuple(slice(*span) for span in BOX)] = after
    return [whole[:: f[0], :: f[1], :: f[2]] for f in FACTORS]


CORNER = tuple(lo for lo, _ in BOX)


def test_a_correction_is_in_every_level_and_is_counted(result):
    labels = levels_of(result)[0]
    before, after = corrected_region(result)
    assert gained_by_hand(result) == {}
    count = correct(result, CORNER, before, after)
    assert gained_by_hand(result) == gain(labels, levels_of(result)[0])
    assert count == (before != after).sum() == corrected_voxels(result)
    assert all(map(np.array_equal, levels_of(result), expected(labels, after)))
    assert not (result / PENDING).exists()
    assert correct(result, CORNER, after, after) == 0 and corrected_voxels(result) == count


def test_only_chunks_with_a_change_are_written(result):
    before = read_region(result, BOX)
    after = before.copy()
    after[0, 0, 0] = (before[0, 0, 0] + 1) % 3
    times = {path: path.stat().st_mtime_ns for path in (result / "0").rglob("*") if path.is_file()}
    correct(result, CORNER, before, after)
    assert sum(path.stat().st_mtime_ns != time for path, time in times.items()) == 1


@pytest.mark.parametrize("writes", range(8))
def test_a_kill_at_any_write_loses_no_correction_and_leaves_no_half_of_one(result, monkeypatch, writes):
    labels = levels_of(result)[0]
    before, after = corrected_region(result)
    store, left = type(zarr.open(str(result / "0"), mode="r").store), [writes * 3]

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patch:
        put = store.set

        async def dies(self, *args, **named):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return await put(self, *args, **named)

        patch.setattr(store, "set", dies)
        try:
            correct(result, CORNER, before, after)
        except Killed:
            assert (result / PENDING).exists() and finish_needed(result)
    finish_correction(result)
    assert all(map(np.array_equal, levels_of(result), expected(labels, after)))
    assert corrected_voxels(result) == (before != after).sum() and not finish_correction(result)
    assert gained_by_hand(result) == gain(labels, levels_of(result)[0])  # also where some chunks were written before
    assert correct(result, CORNER, before, after) == (before != after).sum()  # saved again: nothing is counted twice
    assert corrected_voxels(result) == (before != after).sum()
    assert gained_by_hand(result) == gain(labels, levels_of(result)[0])


def test_what_a_correction_that_noted_no_gain_changed_is_not_known(result):
    before, after = corrected_region(result)
    correct(result, CORNER, before, after)
    group = zarr.open_group(str(result), mode="r+")
    about = dict(group.attrs["napari_nnunet"])
    del about["corrected"]["gained"]  # as earlier versions wrote it
    group.attrs["napari_nnunet"] = about
    assert gained_by_hand(result) is None
    more = np.where(after == 1, 2, after).astype(after.dtype)
    correct(result, CORNER, after, more)
    assert gained_by_hand(result) is None and corrected_voxels(result) > (before != after).sum()


def gain(labels, whole):
    return {v: n for v in range(3) if (n := int((whole == v).sum()) - int((labels == v).sum()))}


def finish_needed(path):
    return (path / PENDING).stat().st_size > 0


def test_a_full_disk_is_a_sentence_and_the_correction_is_finished_later(result, monkeypatch):
    import errno

    before, after = corrected_region(result)
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(corrections, "_write_finest", full)
        with pytest.raises(
            ResourceError, match="No space left .*The correction is kept, and finished when it is opened"
        ):
            correct(result, CORNER, before, after)
    assert np.array_equal(read_region(result, BOX), after)


def test_what_somebody_else_changed_meanwhile_is_not_overwritten(result):
    before, after = corrected_region(result)
    one = before.copy()
    place = tuple(np.argwhere(before != after)[0])
    one[place] = ({0, 1, 2} - {int(before[place]), int(after[place])}).pop()
    correct(result, CORNER, before, one)
    with pytest.raises(
        SettingsError, match="1 voxel of r.zarr changed on disk since this region was opened. Open the reg"
    ):
        correct(result, CORNER, before, after)


def test_labels_of_other_programs_are_not_corrected(tmp_path):
    path = ome_zarr(tmp_path / "other.zarr", [np.zeros((4, 8, 8), np.uint8)])
    with pytest.raises(ImageError, match="was not written by this program, .* Save a copy of the labels"):
        read_region(path, ((0, 1),) * 3)


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]\n", b'{"word": "a", "corner": [0, 0, 0], "shape": [9, 21, 31], "values": 1}\n',
                                     b'{"word": "a", "corner": [0, 0, 0], "shape": [1, 1, 8], "values": 2}\n\xff\x01'])  # fmt: skip
def test_a_forged_or_torn_correction_is_refused(result, content):
    before = levels_of(result)
    (result / PENDING).write_bytes(content)
    with pytest.raises(SettingsError, match="is damaged: .* Delete it"):
        read_region(result, BOX)
    assert all(map(np.array_equal, levels_of(result), before))


def test_a_chunk_that_cannot_be_read_is_a_sentence(result):
    chunk = next(
        path
        for path in sorted((result / "0").rglob("*"))
        if path.is_file() and "json" not in path.name and not path.name.startswith(".")
    )
    chunk.write_bytes(b"nonsense")
    with pytest.raises(ImageError, match="cannot be read here: .* Restore that part of it"):
        read_region(result, tuple((0, n) for n in SHAPE))


def chunk_of(path, level):
    """Return a file of a level's voxels in which the region lies."""
    files = [file for file in sorted((path / level).rglob("*")) if file.is_file()]
    return next(file for file in files if "json" not in file.name and not file.name.startswith("."))


@pytest.mark.parametrize("level", ["1", "2"])
def test_a_damaged_coarser_level_is_a_sentence_and_once_restored_the_correction_is_finished(result, level):
    before, after = corrected_region(result, share=1)
    labels, chunk = levels_of(result)[0], chunk_of(result, level)
    content = chunk.read_bytes()
    chunk.write_bytes(content[: len(content) // 2])
    said = rf"Level {level} of .*r\.zarr could not be corrected: .*is kept, .*Restore that level; or delete .*{PENDING}"
    with pytest.raises(ImageError, match=said):
        correct(result, CORNER, before, after)
    with pytest.raises(ImageError, match=said):
        finish_correction(result)
    chunk.write_bytes(content)
    assert finish_correction(result) and not (result / PENDING).exists()
    assert all(map(np.array_equal, levels_of(result), expected(labels, after)))


def test_values_of_another_type_are_written_where_the_file_can_hold_them(result):
    labels = levels_of(result)[0]
    before, after = corrected_region(result)
    correct(result, CORNER, before, after.astype(np.int64))
    assert all(map(np.array_equal, levels_of(result), expected(labels, after)))
    with pytest.raises(SettingsError, match=r"holds labels of type uint8, which cannot hold all values .* Paint with"):
        correct(result, CORNER, after, np.full(after.shape, 300))
    assert not (result / PENDING).exists() and np.array_equal(read_region(result, BOX), after)


@pytest.mark.parametrize("step", ["_write_finest", "_write_coarser"])
@pytest.mark.parametrize("error", [ImageError("Level 1 is odd. Save a copy."), MemoryError(), OSError(12, "no memory")])
def test_our_own_sentences_are_told_and_a_full_memory_with_what_becomes_of_the_correction(
    result, monkeypatch, step, error
):
    before, after = corrected_region(result)
    with monkeypatch.context() as patch:

        def fails(*_):
            raise error

        patch.setattr(corrections, step, fails)
        for change in (lambda: correct(result, CORNER, before, after), lambda: finish_correction(result)):
            with pytest.raises((ImageError, ResourceError)) as caught:
                change()
            assert caught.value is error or caught.value.message == (
                "Not enough main memory. The correction is kept, and finished when the labels are opened again. Close "
                "other programs first."
            )
    assert (result / PENDING).exists()
    assert np.array_equal(read_region(result, BOX), after) and not (result / PENDING).exists()


@pytest.mark.parametrize("error", [ImageError("r.zarr/0 promises too much. Export it again."), MemoryError()])
def test_reading_a_region_wraps_neither_our_own_sentences_nor_a_full_memory(result, monkeypatch, error):
    class Fails:
        def __getitem__(self, _):
            raise error

    monkeypatch.setattr(corrections, "_opened", lambda *_: (None, [Fails()]))
    with pytest.raises(type(error)) as caught:
        read_region(result, BOX)
    assert caught.value is error
