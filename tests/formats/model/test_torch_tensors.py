"""Files of torch are read as torch reads them, without torch where it is not needed, and within their own bytes."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from napari_nnunet.errors import ModelError
from napari_nnunet.formats.model import torch_tensors
from napari_nnunet.formats.model.torch_file import CHECKSUM, read_torch, require_whole

_WHOLE = torch.arange(60.0).reshape(3, 4, 5)
CONTENTS = {
    "types": {str(kind): torch.arange(7).to(kind) for kind in torch_tensors._KINDS.values()},
    "views": {"all": _WHOLE, "part": _WHOLE[1:, ::2], "turned": _WHOLE.permute(2, 0, 1), "number": _WHOLE[2, 3, 4]},
    "empty": {"none": torch.empty(0), "flat": torch.empty(3, 0, 2), "place": torch.device("cpu")},
    "nested": {"groups": [{"state": (torch.ones(2), 3)}, [torch.zeros(1), None]], "a": OrderedDict(b=torch.ones(1))},
    "numpy": {"log": [np.float64(0.5), np.arange(3)], "weights": torch.ones(3)},
}


def same(one, other):
    """Whether two contents are equal, types and places of tensors in memory included."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and np.array_equal(np.array(one), np.array(other))


@pytest.fixture
def alone(monkeypatch):
    """Without torch's own reader."""
    monkeypatch.delattr(torch_tensors, "read_by_torch")
    monkeypatch.setattr(torch_tensors, "read_by_torch", None, raising=False)


@pytest.mark.parametrize("name", CONTENTS)
def test_a_content_is_read_as_torch_reads_it(tmp_path, alone, name):
    path = tmp_path / "x.pth"
    torch.save(CONTENTS[name], path)
    with torch.serialization.safe_globals(torch_tensors._ALLOWED):
        assert same(read_torch(path), torch.load(path, weights_only=True))


def test_weights_may_be_changed_without_changing_the_file_and_what_was_shared_still_is(tmp_path, alone):
    path = tmp_path / "x.pth"
    torch.save({"a": _WHOLE, "b": _WHOLE[1]}, path)
    before, found = path.read_bytes(), read_torch(path)
    found["a"][1] = -1
    assert (found["b"] == -1).all()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "value",
    [torch.ones(2, dtype=torch.complex64), torch.nn.Parameter(torch.ones(2)), torch.Size([1, 2]), torch.eye(2).to_sparse(),
     torch.ones(1).expand(5), torch.float16],
    ids=["complex", "parameter", "size", "sparse", "expanded", "type"],
)  # fmt: skip
def test_what_is_not_known_here_is_read_by_torch(tmp_path, value):
    path = tmp_path / "x.pth"
    torch.save({"odd": value, "plain": torch.ones(2)}, path)
    found = read_torch(path)
    assert type(found["odd"]) is type(value)
    assert str(found["odd"]) == str(value)
    assert torch.equal(found["plain"], torch.ones(2))


def forged(path, operations):
    """Write a file of torch with one storage of ten float32, whose table is made of pickle's operations."""
    torch.save({"weights": torch.arange(10.0)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, b"\x80\x02" + operations + b"." if name.endswith("data.pkl") else content)


def storage(count):
    """Return the operations that ask for the storage, as so many values."""
    return (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu" + pickle.dumps(count, 2)[2:-1] + b"tQ"
    )


def tensor(count, offset, size, stride):
    """Return the operations that make a tensor of it."""
    plain = b"".join(pickle.dumps(value, 2)[2:-1] for value in (offset, size, stride, False))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(count) + plain + b"ccollections\nOrderedDict\n)RtR"


def table(*tensors):
    """Return the operations that make a dictionary of tensors."""
    return b"}(" + b"".join(b"K%c" % number + made for number, made in enumerate(tensors)) + b"u"


def test_a_table_made_by_hand_is_read(tmp_path, alone):
    forged(tmp_path / "x.pth", table(tensor(10, 4, (2, 3), (3, 1)), tensor(5, 4, (1,), (1,))))
    assert read_torch(tmp_path / "x.pth")[0].tolist() == [[4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize(
    "operations",
    [
        table(tensor(10, 5, (2, 3), (3, 1))),
        table(tensor(10, 0, (2,), (10,))),
        table(tensor(10, -1, (2,), (1,))),
        table(tensor(10, 9, (2,), (-1,))),
        table(tensor(10, 0, (2, 2), (1,))),
        table(tensor(10**6, 0, (10,), (1,)), tensor(1, 0, (1,), (1,))),
        table(tensor(1, 0, (1,), (1,)), tensor(10**6, 0, (10**6,), (1,))),
        table(tensor(10, 0, (2**62, 4, 0, 1), (1, 1, 1, 1)), tensor(10, 2**62, (1,), (1,))),
        table(tensor(10, 0, (1,) * 2_000_000, (1,) * 2_000_000)),
        table(tensor(10, 0, (2,), (1,)) + b"(" + storage(10) + b"J\xff\xff\xff\x7fK\x05\x85K\x01\x85tb"),
        table(tensor(10, 0, (2,), (1,)) + b"N}X\x04\0\0\0dataK\x01s\x86b"),
        table(storage(10) + b")R"),
    ],
    ids=["past the end", "a step past it", "before the beginning", "backwards", "uneven", "first too long", "then too long",
         "none of many", "two million axes", "a state", "an attribute", "a call of a storage"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:TypedStorage")  # torch prints the call that it refuses
def test_nothing_is_made_of_bytes_that_are_not_there_and_no_tensor_is_changed(tmp_path, operations):
    forged(tmp_path / "x.pth", operations)
    with pytest.raises(ModelError, match=r"is not a complete checkpoint|was refused"):
        read_torch(tmp_path / "x.pth")


def flipped(path, values):
    """Flip a bit in each of some values, one after the other, in a copy of a file each; gives the copies' paths."""
    data, wanted = path.read_bytes(), values.numpy().tobytes()
    begin = data.index(wanted)
    for place in range(begin, begin + len(wanted), 5):
        copy = path.with_name("copy.pth")
        copy.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        yield copy


def like_a_checkpoint(**more):
    generator = torch.Generator().manual_seed(0)
    weights, momentum = torch.randn(33, generator=generator), torch.randn(33, generator=generator)
    state = {"state": {0: {"momentum_buffer": momentum}}}
    return {"network_weights": {"w": weights, "same": weights}, "optimizer_state": state, **more}


def test_every_flipped_bit_of_weights_without_a_checksum_of_ours_is_noticed(tmp_path):
    content = like_a_checkpoint()
    torch.save(content, tmp_path / "x.pth")
    assert torch.equal(read_torch(tmp_path / "x.pth")["network_weights"]["w"], content["network_weights"]["w"])
    for path in flipped(tmp_path / "x.pth", content["network_weights"]["w"]):
        with pytest.raises(ModelError, match=r"copy\.pth is damaged: x/data/0 is not what was saved"):
            read_torch(path)


def test_weights_of_what_only_torch_can_read_are_compared_too(tmp_path):
    content = like_a_checkpoint(odd=torch.float16)
    torch.save(content, tmp_path / "x.pth")
    for path in flipped(tmp_path / "x.pth", content["network_weights"]["w"]):
        with pytest.raises(ModelError, match=r"copy\.pth is damaged: x/data/0 is not what was saved"):
            read_torch(path)


def test_every_flipped_bit_of_an_optimizer_is_noticed_where_it_is_used(tmp_path):
    content = like_a_checkpoint(**{CHECKSUM: "that of the weights"})
    torch.save(content, tmp_path / "x.pth")
    require_whole(tmp_path / "x.pth")
    for path in flipped(tmp_path / "x.pth", content["optimizer_state"]["state"][0]["momentum_buffer"]):
        assert read_torch(path)["optimizer_state"]["state"]
        with pytest.raises(ModelError, match=r"copy\.pth is damaged: x/data/1 is not what was saved"):
            require_whole(path)


def test_a_flipped_bit_in_the_table_is_noticed(tmp_path):
    torch.save(like_a_checkpoint(current_epoch=77), tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(data.replace(b"K\x4d", b"K\x4c", 1))
    with pytest.raises(ModelError, match="its table of contents is not what was saved"):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize("kind", ["without checksums", "before 1.6", "packed anew"])
def test_files_whose_zip_has_no_checksums_or_others_are_read(tmp_path, kind):
    path, content = tmp_path / "x.pth", like_a_checkpoint()
    try:
        torch.serialization.set_crc32_options(kind != "without checksums")
        torch.save(content, path, _use_new_zipfile_serialization=kind != "before 1.6")
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    if kind == "packed anew":
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.namelist():
                new.writestr(entry, old.read(entry))
        path = tmp_path / "y.pth"
    assert torch.equal(read_torch(path)["network_weights"]["w"], content["network_weights"]["w"])
    require_whole(path)
