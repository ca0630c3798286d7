"""Preprocessed cases whose .b2nd files lie about sizes, or are other things than arrays."""

from __future__ import annotations

import random
import struct

import blosc2
import numpy as np
import pytest
from tally import TRIES

from napari_nnunet.errors import DatasetError, NnunetError
from napari_nnunet.formats.preprocessed import cases
from napari_nnunet.formats.preprocessed.cases import open_case, read_stored_labels, store_case
from napari_nnunet.formats.preprocessed.frame import checked_frame, frame_of

_SHAPE = (1, 9, 10, 11)
#: Places and kinds of the sizes in a header: of the header, the frame, all bytes, a value, a block, a chunk.
_FIELDS = ((11, ">I"), (16, ">Q"), (30, ">q"), (48, ">i"), (53, ">i"), (58, ">i"))
_WILD = (0, -1, 1, 3, 255, 2**16, 2**30, 2**31 - 1, 2**40, 2**62, 2**63 - 1)


@pytest.fixture
def case(tmp_path):
    """A folder with a case."""
    image = np.random.default_rng(0).random(_SHAPE).astype(np.float32)
    store_case(tmp_path, "c", image, np.ones(_SHAPE, np.int16), {"a": 1}, patch=(4, 4, 4), staging=tmp_path)
    return tmp_path


def head_of(data):
    return data[: int.from_bytes(data[11:15], "big")]


@pytest.mark.parametrize("layer", ["LazyArray", "proxy-source", "b2o", "vlarray", "x"])
def test_what_is_no_array_is_not_opened(case, monkeypatch, layer):
    """Versions of blosc2 open other files, or ask a server, for what these layers of metadata say."""
    blosc2.asarray(np.ones(_SHAPE, np.float32), urlpath=str(case / "c.b2nd"), mode="w", meta={layer: {"a": "b"}})
    monkeypatch.setattr(blosc2, "open", lambda **_: pytest.fail("it was opened"))
    with pytest.raises(DatasetError, match=f"holds other things than an array of numbers .*'{layer}'"):
        open_case(case, "c")


def test_a_layer_that_is_there_twice_is_not_chosen_between(case, monkeypatch):
    """blosc2 takes the first, and whoever looks at the last has looked at nothing."""
    blosc2.asarray(np.ones(_SHAPE, np.float32), urlpath=str(case / "c.b2nd"), mode="w", meta={"b2nX": {"a": "b"}})
    data = (case / "c.b2nd").read_bytes()
    head = head_of(data)
    assert head.count(b"b2nX") == 1
    (case / "c.b2nd").write_bytes(data.replace(b"b2nX", b"b2nd", 1))
    monkeypatch.setattr(blosc2, "open", lambda **_: pytest.fail("it was opened"))
    with pytest.raises(DatasetError, match="the list of its metadata is damaged"):
        open_case(case, "c")


@pytest.mark.parametrize("kind", ["S4", "U2", "c8", "M8[s]"])
def test_only_numbers_are_read(case, kind):
    blosc2.asarray(np.zeros(_SHAPE, kind), urlpath=str(case / "c.b2nd"), mode="w")
    with pytest.raises(DatasetError, match="what it says of its array is damaged"):
        open_case(case, "c")


@pytest.mark.parametrize("shape", [(3,), (1, 5, 6, 7), (2, 70, 80, 90), (1, 1, 1, 1), (1, 3, 600, 600)])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "?"])
def test_arrays_are_what_they_say(tmp_path, shape, dtype):
    path = tmp_path / "a.b2nd"
    array = blosc2.asarray(np.zeros(shape, dtype), urlpath=str(path), mode="w")
    found = frame_of(head_of(checked_frame(path).read_bytes()))
    assert found == (array.shape, array.chunks, array.blocks, array.dtype)


def _acts(folder):
    def look():
        opened = open_case(folder, "c")
        return [np.asarray(part[0, 2:7, :5]) for part in (opened.data, opened.labels)], opened.data[:], opened.labels[:]

    return look, lambda: read_stored_labels(folder / "c_seg.b2nd")


def test_sizes_that_are_wild_are_a_sentence_or_lead_nowhere(case, figures):
    """blosc2 3 divides by some of them, follows others out of its memory, and allocates what the rest say."""
    path = case / "c.b2nd"
    whole = path.read_bytes()
    shape = whole.index(struct.pack(">q", _SHAPE[1]), 100)
    fields = [*_FIELDS, *((shape + 9 * i, ">q") for i in range(3)),
              *((shape + 28 + 5 * i + (i > 3), ">i") for i in range(8))]  # fmt: skip
    for place, kind in fields:
        for value in _WILD:
            changed = bytearray(whole)
            size = struct.calcsize(kind)
            changed[place : place + size] = (value % 256**size).to_bytes(size, "big")
            path.write_bytes(changed)
            for act in _acts(case):
                figures.attempt("arrays", act, f"{value} at {place}", case / "executed")
            if value in (0, -1, 2**31 - 1, 2**62):
                with pytest.raises(ValueError, match="header|hold|damaged|bytes"):
                    checked_frame(path)
    figures.require_none()


def test_a_header_with_a_byte_that_is_another_is_read_or_refused(case, figures):
    chance, whole = random.Random(0), (case / "c_seg.b2nd").read_bytes()
    places = range(len(head_of(whole)))
    for place in places if TRIES else chance.sample(places, 60):
        changed = bytearray(whole)
        changed[place] ^= chance.randrange(1, 256)
        (case / "c_seg.b2nd").write_bytes(changed)
        for act in _acts(case):
            figures.attempt("arrays", act, f"byte {place} is {changed[place]}", case / "executed")
    figures.require_none()


def test_no_more_is_read_than_memory_holds(case, monkeypatch):
    opened, asked = open_case(case, "c").data, []
    monkeypatch.setattr(cases, "require_room", lambda _, shape, __: asked.append(tuple(shape)))
    for key in (slice(None), (0, slice(2, 7), slice(None, 5)), (slice(None), 3), (..., 1), 0):
        assert np.asarray(opened[key]).size <= np.prod(asked[-1])
    assert asked == [_SHAPE, (5, 5, 11), (1, 10, 11), _SHAPE, (9, 10, 11)]
    with pytest.raises(NnunetError):
        read_stored_labels(case / "nothing_seg.b2nd")
