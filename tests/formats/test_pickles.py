"""Pickles: plain values and arrays come back, everything else is refused and nothing of it runs."""

from __future__ import annotations

import collections
import contextlib
import datetime
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import nasty
from napari_nnunet.errors import DatasetError, ResourceError
from napari_nnunet.formats.pickle_limits import walk
from napari_nnunet.formats.pickles import read_pickle, read_with, write_pickle

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip
NUMBERS = arrays.arrays(
    st.sampled_from(["i1", "u1", "<i2", ">i2", "u4", "i8", ">u8", "f2", "f4", ">f8", "c8", "?"]),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


class Order:
    """A payload: what a pickle asks to be called."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def same(first, second):
    return pickle.dumps(first, protocol=4) == pickle.dumps(second, protocol=4)


@settings(max_examples=80)
@given(PLAIN, st.integers(0, 5))
def test_plain_values_come_back_from_every_protocol(tmp_path_factory, value, protocol):
    path = tmp_path_factory.mktemp("p") / "x.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert repr(read_pickle(path)) == repr(value)


@settings(max_examples=80)
@given(NUMBERS, st.integers(0, 5), st.booleans())
def test_arrays_come_back_with_their_type_shape_and_order(tmp_path_factory, array, protocol, fortran):
    path = tmp_path_factory.mktemp("p") / "x.pkl"
    array = np.asfortranarray(array) if fortran else array
    path.write_bytes(pickle.dumps({"array": array, "again": array}, protocol=protocol))
    found = read_pickle(path)
    assert isinstance(found["array"], np.ndarray)
    assert found["array"].dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found["array"], array, strict=False)
    assert found["array"].shape == array.shape
    assert found["array"].flags.writeable


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.int32, np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("protocol", range(6))
def test_scalars_of_numpy_come_back(tmp_path, kind, protocol):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(kind(1), protocol=protocol))
    found = read_pickle(tmp_path / "x.pkl")
    assert found == 1
    assert type(found) is kind


def test_numpy_of_both_generations_is_understood(tmp_path):
    data = pickle.dumps({"a": np.arange(4), "s": np.float32(2)}, protocol=2)
    for name in (b"numpy.core", b"numpy._core"):
        (tmp_path / "x.pkl").write_bytes(data.replace(b"numpy._core", name))
        assert read_pickle(tmp_path / "x.pkl")["a"].tolist() == [0, 1, 2, 3]


def test_what_is_written_is_read(tmp_path):
    content = {"spacing": [1.0, 0.5], "class_locations": {1: np.zeros((2, 4), np.int64), (1, 2): []}}
    write_pickle(tmp_path / "Fäll 1.pkl", content)
    found = read_pickle(tmp_path / "Fäll 1.pkl")
    assert same(found.pop("spacing"), content.pop("spacing"))
    assert list(found["class_locations"]) == [1, (1, 2)]


@pytest.mark.parametrize(
    "make",
    [
        lambda touch: Order(os.system, f"touch {touch}"),
        lambda touch: Order(open, str(touch), "w"),
        lambda touch: Order(exec, f"open({str(touch)!r}, 'w')"),
        lambda touch: Order(eval, f"open({str(touch)!r}, 'w')"),
        lambda touch: Order(getattr, "", "join"),
        lambda touch: Order(np.savetxt, str(touch), [1.0]),
        lambda touch: Order(np.save, str(touch), [1.0]),
        lambda touch: Order(np.ndarray, (3,)),
        lambda touch: Order(np.ndarray, (10**12,), np.dtype("u1")),
        lambda touch: datetime.datetime(2020, 1, 1),
        lambda touch: collections.Counter("a"),
        lambda touch: collections.defaultdict(list),
        lambda touch: touch,
        lambda touch: slice(1, 2),
        lambda touch: np.arange,
        lambda touch: np.random.default_rng,
        lambda touch: np.array([object()], dtype=object),
        lambda touch: np.array(["text"]),
        lambda touch: np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        lambda touch: np.array(["2020-01-01"], dtype="M8[D]"),
        lambda touch: np.ma.masked_array([1, 2], [0, 1]),
    ],
    ids=lambda make: None,
)  # fmt: skip
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_what_is_no_number_text_or_container_is_refused_and_nothing_runs(tmp_path, make, protocol):
    touched = tmp_path / "touched"
    thing = make(touched)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"deep": [1, (thing,)]}, protocol=protocol))
    with pytest.raises(DatasetError, match=r"x\.pkl (was refused|is damaged)"):
        read_pickle(tmp_path / "x.pkl")
    assert not touched.exists()


def test_names_that_a_caller_knows_are_looked_up_in_its_table_only(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"cnnunetv2.somewhere\nfunction\n.")
    assert read_with(tmp_path / "x.pkl", {("nnunetv2.somewhere", "function"): len}) is len
    with pytest.raises(DatasetError, match="asks for nnunetv2.somewhere.function"):
        read_pickle(tmp_path / "x.pkl")
    with pytest.raises(DatasetError, match="asks for nnunetv2.somewhere.function"):
        read_with(tmp_path / "x.pkl", {("nnunetv2.somewhere", "other"): len})


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ((4,), b"\0" * 31),
        ((5,), b"\0" * 32),
        ((-4,), b"\0" * 32),
        ((2**62, 4), b""),
        ((0, -1), b""),
        ((4,), [1, 2, 3, 4]),
    ],
)
def test_arrays_whose_bytes_do_not_fit_their_shape_are_refused(tmp_path, shape, data):
    class Forged:
        def __reduce__(self):
            function, arguments, (version, _, dtype, fortran, _) = np.arange(4).__reduce__()
            return function, arguments, (version, shape, dtype, fortran, data)

    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Forged()))
    with pytest.raises(DatasetError, match="refused"):
        read_pickle(tmp_path / "x.pkl")


def test_the_type_of_an_array_cannot_be_made_into_something_else(tmp_path):
    class Forged:
        def __init__(self, state):
            self.state = state

        def __reduce__(self):
            return np.dtype, ("i8", False, True), self.state

    for state in (
        (3, "!", None, None, None, -1, -1, 0),
        (3, "<", None, None, None, 10**6, -1, 63),
        (3, "<", ("i8", (9,)), None, None, -1, -1, 63),
        (),
        5,
    ):
        function, arguments, (version, shape, _, fortran, data) = np.arange(4).__reduce__()
        path = tmp_path / "x.pkl"

        forged = function, arguments, (version, shape, Forged(state), fortran, data)

        class Whole:
            def __reduce__(self, own=forged):
                return own

        path.write_bytes(pickle.dumps(Whole()))
        try:
            found = read_pickle(path)
        except DatasetError:
            continue
        assert found.tolist() == [0, 1, 2, 3]  # what was asked for beyond the byte order counts for nothing


@pytest.mark.parametrize("protocol", [2, 4])
def test_damaged_pickles_are_refused_in_words_or_read(tmp_path, protocol):
    content = {"spacing": [1.0, 2.0], "a": np.arange(5), "s": np.float32(3), "t": (1, None, True), "b": b"x"}
    path = tmp_path / "x.pkl"
    for data in nasty.damaged(pickle.dumps(content, protocol=protocol), seed=protocol, count=15):
        path.write_bytes(data)
        with contextlib.suppress(DatasetError):
            read_pickle(path)


def test_a_missing_file_and_one_beside_preprocessed_data_say_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="is not a file"):
        read_pickle(tmp_path)
    with pytest.raises(DatasetError, match=r"a\.pkl does not exist"):
        read_pickle(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        read_pickle(tmp_path / "a.pkl")
    assert "Preprocess" not in caught.value.message
    (tmp_path / "a.b2nd").touch()
    with pytest.raises(DatasetError, match="Preprocess the case again"):
        read_pickle(tmp_path / "a.pkl")


def test_a_write_that_fails_leaves_the_old_pickle(tmp_path):
    write_pickle(tmp_path / "x.pkl", {"a": 1})
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        write_pickle(tmp_path / "x.pkl", {"a": lambda: 1})
    assert [path.name for path in tmp_path.iterdir()] == ["x.pkl"]
    assert read_pickle(tmp_path / "x.pkl") == {"a": 1}
    with pytest.raises(ResourceError, match="could not be written"):
        write_pickle(tmp_path / "none" / "x.pkl", {})


def test_what_was_read_is_written_as_plain_arrays(tmp_path):
    write_pickle(tmp_path / "a.pkl", {"a": np.arange(6, dtype=np.int16).reshape(2, 3)})
    write_pickle(tmp_path / "b.pkl", read_pickle(tmp_path / "a.pkl"))
    with (tmp_path / "b.pkl").open("rb") as file:
        again = pickle.load(file)["a"]
    assert type(again) is np.ndarray
    assert again.tolist() == [[0, 1, 2], [3, 4, 5]]


# --- what a pickle claims ---------------------------------------------------------------------------------------------

DEEP = b"\x80\x04})" + b"\x85" * 300_000 + b"Ns."  # a dictionary with tuples within each other as its key


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x80\x04Nr\xff\xff\xff\x0f.", "numbers a value 268435455, and has 9 bytes"),
        (b"Np999999999\n.", "numbers a value 999999999"),
        (b"Np" + b"9" * 5000 + b"\n.", "numbers a value b'99999"),
        (DEEP, "tuples within each other more than 200 deep"),
        (DEEP.replace(b"\x85" * 300_000, b"\x85\x9420" * 100_000), "tuples within each other more than 200 deep"),
        (b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b"N.", "damaged|claims"),
        (b"\x80\x04\x95" + (1 << 62).to_bytes(8, "little") + b"N.", "truncated|damaged"),
        (b"\x80\x04B\xff\xff\xff\x7fN.", "truncated|damaged"),
        (b"I" + b"9" * 6000 + b"\n.", "damaged"),
    ],
    ids=range(9),
)
def test_a_pickle_takes_no_more_memory_and_depth_than_it_holds(tmp_path, content, why):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DatasetError, match=why) as caught:
        read_pickle(path)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    assert len(caught.value.message) < 600


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("depth", [0, 3, 150])
def test_walking_through_a_pickle_ends_where_it_ends(protocol, depth):
    value = {"a": [1, 2.5, None, True, b"x", "y", 2**80, {1}, frozenset({2}), bytearray(b"z")], "b": np.eye(3)}
    for _ in range(depth):
        value = (value, depth)
    value = [value, value]
    content = pickle.dumps(value, protocol)
    assert walk(b"ab" + content + b"more", 2) == 2 + len(content)


@given(st.binary(max_size=40))
def test_walking_through_any_bytes_ends(content):
    with contextlib.suppress(pickle.UnpicklingError):
        assert walk(content) <= len(content)


_STEPS = {
    "tuples that hold the one before twice": (
        b"}K\x01\x85q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"Ns.", "a tuple of more"
    ),
    "more steps than any file has": (b"N0" * 3_000_000 + b"N.", "more than 5,000,000 steps"),
}  # fmt: skip


@pytest.mark.parametrize("name", _STEPS)
def test_a_few_bytes_do_not_keep_the_reader_busy_for_ever(tmp_path, name):
    content, why = _STEPS[name]
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + content)
    with pytest.raises(DatasetError, match=why):
        read_pickle(tmp_path / "x.pkl")


def test_a_pickle_changes_no_function_of_ours_for_the_next(tmp_path):
    key, value = b"X\x0c\x00\x00\x00__defaults__", b"X\x01\x00\x00\x00F\x85"
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02cnumpy._core.numeric\n_frombuffer\nN}" + key + value + b"s\x86b.")
    with pytest.raises(DatasetError, match="is damaged"):
        read_pickle(tmp_path / "x.pkl")
