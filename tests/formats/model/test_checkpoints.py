"""Checkpoints of other trainers, and weights that were damaged on their way."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import shutil
import types
import zipfile
from collections import Counter, defaultdict, deque
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from napari_nnunet.errors import ModelError
from napari_nnunet.formats.model.checkpoint import (
    CHECKSUM,
    checksum,
    light_checkpoint,
    read_checkpoint,
    read_raw,
    write_checkpoint,
)
from napari_nnunet.formats.model.folder import load_model


class _Setting:
    """A class of somebody's own trainer."""


@pytest.mark.parametrize(
    "kept",
    [
        {"counts": defaultdict(list, {"case": [1, 2]})},
        {"folder": PurePosixPath("/data/results/fold_0"), "here": Path("fold_0")},
        {"begun": datetime(2026, 1, 2, tzinfo=UTC), "took": timedelta(hours=3)},
        {"arguments": argparse.Namespace(lr=0.1), "more": types.SimpleNamespace(a=1)},
        {"seen": {1, 2}, "last": deque([1, 2]), "often": Counter("aab"), "scores": [np.float16(0.5), np.bool_(True)]},
        {"cases": np.array(["case_1", "case_10"]), "exact": Decimal("0.1"), "third": Fraction(1, 3), "steps": range(3)},
    ],
    ids=lambda kept: "-".join(kept),
)
def test_what_own_trainers_keep_besides_weights_is_no_reason_to_refuse_a_checkpoint(model, tmp_path, kept):
    path = model.folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    torch.save({**content, "mine": kept, "logging": {**content["logging"], **kept}}, path)
    found = read_checkpoint(path)
    assert found.weights.keys() == content["network_weights"].keys()
    assert (found.trainer, found.configuration) == (content["trainer_name"], content["init_args"]["configuration"])
    light = torch.load(light_checkpoint(path, tmp_path), weights_only=False)  # whatever else reads it knows its classes
    assert light["network_weights"].keys() == content["network_weights"].keys()
    assert "napari_nnunet" not in str([type(value) for value in light["logging"].values()])


def test_weights_that_were_saved_as_arrays_are_weights(model):
    path = model.folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    arrays = {name: value.numpy() for name, value in content["network_weights"].items()}
    torch.save({**{k: v for k, v in content.items() if k != CHECKSUM}, "network_weights": arrays}, path)
    found = read_checkpoint(path).weights
    assert all(torch.equal(found[name], value) for name, value in content["network_weights"].items())


def test_a_class_that_nobody_knows_is_refused_with_a_way_out(model):
    path = model.folder / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(path, weights_only=False), "mine": _Setting()}, path)
    with pytest.raises(ModelError, match="save it again with nothing but nnU-Net's entries.*_Setting"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([torch.ones(2)], "'network_weights' is a list"),
        ({}, "'network_weights' is a dict"),
        ({"a": 1.5}, "'a' is a float"),
        ({3: torch.ones(2)}, "3 is a Tensor"),
    ],
)
def test_weights_that_are_none_are_named(tmp_path, weights, sentence):
    torch.save({"network_weights": weights}, tmp_path / "c.pth")
    with pytest.raises(ModelError, match=f"is not a checkpoint of nnU-Net v2: .*{sentence}"):
        read_checkpoint(tmp_path / "c.pth")


def test_what_is_given_in_the_place_of_a_checkpoint_is_named_as_what_it_is(model):
    with pytest.raises(ModelError, match=r"plans\.json is a text file, not a checkpoint"):
        read_checkpoint(model.folder / "plans.json")
    with pytest.raises(ModelError, match="fold_0 is a folder; a checkpoint is expected"):
        read_checkpoint(model.folder / "fold_0")
    with pytest.raises(ModelError, match=r"plans\.json is a file; the folder of a model is expected"):
        load_model(model.folder / "plans.json")


def test_a_checkpoint_whose_name_the_system_cannot_write_is_read(model):
    source = model.folder / "fold_0" / "checkpoint_final.pth"
    path = Path(os.fsdecode(os.fsencode(source.parent) + b"/checkpoint_\xfc.pth"))  # no UTF-8: half a character in it
    shutil.copyfile(source, path)
    assert read_checkpoint(path).weights.keys() == read_checkpoint(source).weights.keys()


def _saved(tmp_path, **tensors):
    write_checkpoint(
        tmp_path / "c.pth",
        {"network_weights": tensors},
        plans={},
        dataset={},
        configuration="2d",
        fold=0,
        mirror_axes=None,
        epoch=1,
    )
    return tmp_path / "c.pth"


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_weights_of_any_type_come_back_with_their_checksum(tmp_path, kind):
    path = _saved(tmp_path, w=torch.arange(7).reshape(7, 1).to(kind), n=torch.tensor(3, dtype=kind))
    assert torch.load(path)[CHECKSUM] == checksum(read_raw(path)["network_weights"])


def test_every_changed_byte_of_the_weights_is_noticed(tmp_path):
    path = _saved(tmp_path, w=torch.randn(33, generator=torch.Generator().manual_seed(0)))
    data = path.read_bytes()
    begin = data.index(torch.load(path)["network_weights"]["w"].numpy().tobytes())
    for place in range(begin, begin + 33 * 4, 5):
        path.write_bytes(data[:place] + bytes([data[place] ^ 64]) + data[place + 1 :])
        with pytest.raises(ModelError, match=r"c\.pth is damaged: its weights are not those that were saved"):
            read_checkpoint(path)
    path.write_bytes(data)
    assert read_checkpoint(path).weights["w"].shape == (33,)


def test_a_model_of_nnunet_v1_names_the_way_to_use_it(tmp_path):
    old = tmp_path / "Task017_Ball" / "nnUNetTrainerV2__nnUNetPlansv2.1"
    (old / "fold_0").mkdir(parents=True)
    (old / "plans.pkl").write_bytes(b"")
    for folder in (old, old.parent, old / "fold_0"):
        with pytest.raises(
            ModelError, match="is a model of nnU-Net v1.*import_old_nnunet_model FOLDER DatasetXXX_Name"
        ):
            load_model(folder)


@pytest.mark.parametrize("legacy", [False, True])
def test_tuples_within_each_other_end_no_process(tmp_path, legacy):
    path, deep = tmp_path / "deep.pth", b"\x80\x02})" + b"\x85" * 300_000 + b"Ns."
    torch.save({"network_weights": {}}, path, _use_new_zipfile_serialization=not legacy)
    if legacy:
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})) + deep)
    else:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, deep if name.endswith("data.pkl") else content)
    with pytest.raises(ModelError, match="more than 200 deep"):
        read_checkpoint(path)


@pytest.mark.parametrize("odd", [np.eye(2), torch.eye(2), [], "x", {}, [torch.eye(2)], -1.5], ids=range(7))
def test_entries_of_other_kinds_are_refused_or_passed_over(model, odd):
    path = model.folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    refused = []
    for key in ("init_args", "current_epoch", "trainer_name", "logging", CHECKSUM, "inference_allowed_mirroring_axes"):
        torch.save({**content, key: odd}, path)
        try:
            found = read_checkpoint(path)
        except ModelError as error:
            refused.append(error.message)
        else:
            assert found.epoch in (content["current_epoch"], None)
    assert all("checksum" in said or "mirroring" in said for said in refused)


def rezipped(path, change, *, name=str, kind=zipfile.ZIP_STORED):
    """Write a checkpoint's zip anew, with other members, names or compression."""
    content = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(path, "w", kind) as new:
        for entry in old.infolist():
            new.writestr(name(entry.filename), change(entry.filename, old.read(entry)))


def without_checksum(path):
    content = torch.load(path, weights_only=False)
    del content[CHECKSUM]
    torch.save(content, path)
    return content


def test_a_storage_that_is_shorter_than_its_table_says_is_not_filled_with_what_follows(model):
    path = model.folder / "fold_0" / "checkpoint_final.pth"
    without_checksum(path)
    rezipped(path, lambda name, data: data[:4] if name.endswith("/data/0") else data)
    with pytest.raises(ModelError, match=r"1 of its \d+ tensors are cut off"):
        read_checkpoint(path)


def test_a_checkpoint_that_was_packed_anew_holds_the_same_weights(model):
    path = model.folder / "fold_0" / "checkpoint_final.pth"
    wanted = without_checksum(path)["network_weights"]
    rezipped(path, lambda _, data: data, kind=zipfile.ZIP_DEFLATED)
    found = read_checkpoint(path).weights
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


_DEEP = b"\x80\x02}N" + b"\x85" * 100_000 + b"Ns."
_BOMB = b"\x80\x02}K\x01\x85q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"Ns."


@pytest.mark.parametrize("table", [_DEEP, _BOMB], ids=["deep", "bomb"])
@pytest.mark.parametrize("how", ["plain", "upper case", "another name before it"])
def test_a_table_that_would_end_or_hold_up_the_process_is_refused_however_it_is_called(model, table, how):
    path = model.folder / "fold_0" / "checkpoint_final.pth"
    rename = (lambda name: name.replace("data.pkl", "DATA.PKL")) if how == "upper case" else str
    rezipped(path, lambda name, data: table if name.endswith("data.pkl") else data, name=rename)
    if how == "another name before it":
        path.write_bytes(path.read_bytes().replace(b"/data.pkl", b"/dataXpkl", 1))
    with pytest.raises(ModelError, match="is not a complete checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: w.to_sparse(),
        lambda w: w.to("meta"),
        lambda w: w.to(torch.complex64),
        lambda w: w.to(torch.float8_e4m3fn),
        lambda w: w.flatten()[:1].expand(10**9),
    ],
    ids=["sparse", "meta", "complex", "float8", "expanded"],
)
def test_tensors_that_are_no_plain_numbers_are_named(model, make):
    path = model.folder / "fold_0" / "checkpoint_final.pth"
    content = without_checksum(path)
    name = next(iter(content["network_weights"]))
    content["network_weights"][name] = make(content["network_weights"][name])
    torch.save(content, path)
    with pytest.raises(ModelError, match=f"'{name}' is a tensor without plain real values of its own"):
        read_checkpoint(path)


def test_axes_that_are_named_twice_are_refused(model):
    path = model.folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    torch.save({**content, "inference_allowed_mirroring_axes": (0,) * 100}, path)
    with pytest.raises(ModelError, match="each at most once"):
        read_checkpoint(path)
