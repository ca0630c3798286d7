"""Generators of hostile files: every one takes a chance (``random.Random``) and gives bytes for ever."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import torch

from helpers import Recipe, make_model
from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.images.files import read_header, read_labels, read_volume, write_image
from napari_nnunet.formats.model.bundle import inspect
from napari_nnunet.formats.model.checkpoint import read_checkpoint
from napari_nnunet.formats.pickles import read_pickle
from napari_nnunet.formats.preprocessed.cases import open_case, preprocessed_files, store_case
from napari_nnunet.formats.results.postprocessing import read_cleaning
from napari_nnunet.formats.results.probabilities import ProbabilityReader, write_probabilities
from napari_nnunet.schema.geometry import Geometry

IMAGES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".gipl", ".tif", ".png", ".bmp", ".jpg")
_NAMES = (
    b"os\nsystem", b"posix\nsystem", b"builtins\neval", b"builtins\nexec", b"subprocess\nPopen", b"numpy\nload",
    b"numpy.core.multiarray\n_reconstruct", b"numpy\nndarray", b"numpy\ndtype", b"collections\nOrderedDict",
    b"torch._utils\n_rebuild_tensor_v2", b"torch.storage\n_load_from_bytes", b"functools\npartial", b"codecs\ndecode",
)  # fmt: skip


def damage(data, chance):
    """Return bytes with something wrong: cut off, changed, doubled, left out, zeroed, or a large number written in."""
    changed, at = bytearray(data), chance.randrange(max(1, len(data)))
    end = min(len(data), at + chance.choice((1, 4, 16, 300)))
    how = chance.randrange(7)
    if how == 0:
        return bytes(changed[:at])
    if how == 1:
        return bytes(changed[:at] + changed[end:])
    if how == 2:
        return bytes(changed[:end] + changed[at:])
    if how == 3:
        changed[at:end] = chance.choice((b"\x00", b"\xff", b"\x7f")) * (end - at)
    elif how == 4:
        at = chance.randrange(min(400, max(1, len(data))))  # headers are at the beginning
        changed[at : at + 4] = chance.choice((2**31 - 1, 2**32 - 1, 0, 2**16, 10**9)).to_bytes(4, "little")
    else:
        for _ in range(chance.randrange(1, 6)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


class _Order:
    def __init__(self, call, *arguments):
        self.order = call, arguments

    def __reduce__(self):
        return self.order


def pickles(chance, canary):
    """Give pickles: orders to make a file, other functions, arrays that do not fit, damaged ones."""
    orders = ((Path.touch, canary), (exec, f"open({str(canary)!r}, 'w')"), (eval, f"open({str(canary)!r}, 'w')"),
              (shutil.copy, __file__, str(canary)))  # fmt: skip
    plain = {"a": np.arange(12.0).reshape(3, 4), "b": [1, "x", None, (2, 3)], "c": np.float32(1), "d": np.eye(2) > 0}
    while True:
        protocol, how = chance.randrange(6), chance.randrange(4)
        if how == 0:
            yield pickle.dumps({"x": [_Order(*chance.choice(orders))]}, protocol)
        elif how == 1:
            yield b"\x80\x02c" + chance.choice(_NAMES) + b"\n" + damage(pickle.dumps((1, "x"), 2), chance)[2:] + b"R."
        elif how == 2:
            data = pickle.dumps(plain, protocol)
            yield data.replace(b"f8", chance.choice((b"O8", b"V8", b"f9", b"U9"))) if chance.random() < 0.5 else data
        else:
            yield damage(pickle.dumps(plain, protocol), chance)


def checkpoints(chance, canary, folder):
    """Give checkpoints: damaged, with another table of contents, and with orders in it."""
    whole = (make_model(folder, Recipe()).folder / "fold_0" / "checkpoint_final.pth").read_bytes()
    content = torch.load(io.BytesIO(whole), weights_only=False)
    tables = pickles(chance, canary)
    while True:
        how = chance.randrange(4)
        if how == 0:
            yield damage(whole, chance)
        elif how == 1:
            yield rezipped(whole, lambda name, data: next(tables) if name.endswith("data.pkl") else data)
        elif how == 2:
            odd = chance.choice((None, 3, "x", [], {}, {"a": 1}, np.eye(2), torch.full((2,), float("nan"))))
            key = chance.choice(list(content))
            yield _saved({**content, key: odd})
        else:
            yield rezipped(whole, lambda name, data: damage(data, chance) if name.endswith("data.pkl") else data)


def _saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def rezipped(data, change):
    """Return a zip with its members changed."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(target, "w") as new:
        for entry in archive.infolist():
            new.writestr(entry.filename, change(entry.filename, archive.read(entry)))
    return target.getvalue()


def zips(chance, whole):
    """Give zips of a model: damaged, with entries that lead elsewhere, of other kinds, twice, or far too large."""
    names = ("../escaped.txt", "/escaped.txt", "C:/escaped.txt", "..\\escaped.txt", "a/../../escaped.txt", "x\x00y",
             "x\ny", "CON", "a" * 300, "é/x", "", "Dataset001_Tiny/x")  # fmt: skip
    while True:
        how = chance.randrange(4)
        if how == 0:
            yield damage(whole, chance)
            continue
        file = io.BytesIO(rezipped(whole, lambda name, data: damage(data, chance) if chance.random() < 0.2 else data))
        with zipfile.ZipFile(file, "a") as archive:
            info = zipfile.ZipInfo(chance.choice(names) or "x")
            if how == 1:
                info.external_attr = chance.choice((0o120777, 0o010644, 0o040755)) << 16  # a link, a pipe, a folder
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, b"/" if how < 3 else bytes(2_000_000))
        yield file.getvalue()


def images(chance, folder):
    """Give (ending, bytes) of images of every format, damaged somewhere."""
    wholes, rng = {}, np.random.default_rng(chance.randrange(2**30))
    for ending in IMAGES:
        path, flat = folder / f"whole{ending}", ending in (".png", ".bmp", ".jpg")
        array = rng.integers(0, 200, (12, 14) if flat else (5, 12, 14)).astype(np.uint8)
        if ending == ".jpg":
            import imageio.v3 as iio

            iio.imwrite(path, array)
        else:
            write_image(array, Geometry(spacing=(1.0,) * array.ndim), path)
        wholes[ending] = path.read_bytes()
    while True:
        ending = chance.choice(IMAGES)
        yield ending, damage(wholes[ending], chance)


def arrays(chance, folder):
    """Give (ending, bytes) of probabilities (.npz), preprocessed images (.b2nd) and their properties (.pkl), damaged."""
    probabilities = np.random.default_rng(0).random((3, 4, 5, 6)).astype(np.float32)
    write_probabilities(probabilities / probabilities.sum(0), folder / "p.npz")
    store_case(folder, "c", probabilities, np.zeros((1, 4, 5, 6), np.int16), {"a": 1}, patch=(4, 4, 4), staging=folder)
    wholes = {".npz": (folder / "p.npz").read_bytes()}
    wholes |= dict(
        zip((".b2nd", "_seg.b2nd", ".pkl"), (p.read_bytes() for p in preprocessed_files(folder, "c")), strict=True)
    )
    while True:
        ending = chance.choice(list(wholes))
        if ending == ".npz" and chance.random() < 0.5:
            yield ending, rezipped(wholes[ending], lambda _, data: damage(data, chance))
        else:
            yield ending, damage(wholes[ending], chance)


# --- whoever reads such files ----------------------------------------------------------------------------------------


def read_image(path):
    """Read an image as every job does that takes one."""
    read_header(path)
    read_volume([path])
    read_labels(path)


def read_array(path):
    """Read a file of probabilities, or the preprocessed case it belongs to."""
    if path.suffix == ".npz":
        reader = ProbabilityReader(path)
        try:
            return [reader.read(z) for z in range(reader.shape[1])]
        finally:
            reader.close()
    case = open_case(path.parent, "c")
    return case.data[:], case.labels[:], case.read_properties()


def read_pickles(path):
    """Read a pickle as properties and as a postprocessing."""
    try:
        read_cleaning(path)
    except DatasetError:
        read_pickle(path)


def read_weights(path):
    """Read a checkpoint."""
    read_checkpoint(path)


def read_zip(path):
    """Look into a zip of models."""
    inspect(path)
