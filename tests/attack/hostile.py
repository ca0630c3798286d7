"""Generators of hostile files: every one takes a chance (``random.Random``) and gives bytes for ever."""

from __future__ import annotations

import io
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from helpers import Recipe, make_model
from napari_nnunet.errors import DatasetError, InternalError, NnunetError, for_people
from napari_nnunet.formats.dataset.groups import read_groups
from napari_nnunet.formats.dicom.codes import codes_of, read_codes, text_of_codes
from napari_nnunet.formats.images.files import read_header, read_labels, read_volume, write_image
from napari_nnunet.formats.large.opening import open_image
from napari_nnunet.formats.model.bundle import inspect
from napari_nnunet.formats.model.checkpoint import read_checkpoint
from napari_nnunet.formats.pickles import read_pickle
from napari_nnunet.formats.preprocessed.cases import open_case, preprocessed_files, store_case
from napari_nnunet.formats.results.postprocessing import read_cleaning
from napari_nnunet.formats.results.probabilities import ProbabilityReader, write_probabilities
from napari_nnunet.jobs.objects.kinds_table import read_kinds
from napari_nnunet.jobs.prediction.table import QualityTable
from napari_nnunet.schema.geometry import Geometry

IMAGES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".gipl", ".tif", ".png", ".bmp", ".jpg")
SECRET = b"S"  # what no image of these holds nothing but
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


#: Fields of a zip's records by their marks: (place, bytes) of version, flags, method, checksum, sizes, lengths, places.
_RECORDS = {
    b"PK\x03\x04": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\x01\x02": ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (34, 2), (38, 4), (42, 4)),
    b"PK\x05\x06": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
}  # fmt: skip


def with_a_wild_field(data, chance):
    """Return a zip with one field of one of its records changed."""
    changed, mark = bytearray(data), chance.choice(list(_RECORDS))
    at = chance.choice([i for i in range(len(data)) if data.startswith(mark, i)])
    place, size = chance.choice(_RECORDS[mark])
    value = chance.choice((0, 1, 8, 9, 12, 14, 99, 2**15, 2**16 - 1, 2**31, 2**32 - 1, chance.randrange(2**32)))
    changed[at + place : at + place + size] = (value % 256**size).to_bytes(size, "little")
    return bytes(changed)


def packed_otherwise(data, chance):
    """Return a zip with an entry more: twice there, a folder that is a file, in other letters, a bomb, a zip within."""
    file, names = io.BytesIO(data), zipfile.ZipFile(io.BytesIO(data)).namelist()
    name, method = chance.choice(names), chance.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    entries = (
        (name, b"{}"), (f"{name}/x", b"x"), (name.rpartition("/")[0], b"x"), (name.upper(), b"{}"), (f"{name}.", b"x"),
        (f"{name.rpartition('/')[0]}/fold_1/checkpoint_final.pth", data), (f"{name}_bomb", bytes(80_000_000)),
        ("a/" * 400 + "x", b"x"), (f"./{name}", b"x"), (f"{name.rpartition('/')[0]}//x", b"x"),
        (f"{name.rpartition('/')[0]}/fold_0/validation/con.nii.gz", b"x"), (f"{name}\u202e", b"x"), (f"{name}\\..\\..\\x", b"x"),
    )  # fmt: skip
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a", method) as archive:
        warnings.simplefilter("ignore")
        for _ in range(chance.choice((1, 1, 3))):
            archive.writestr(*chance.choice(entries))
    return file.getvalue()


def zips(chance, whole):
    """Give zips of a model: damaged, with wild fields, with entries that lead elsewhere, of other kinds, twice, too large."""
    names = ("../escaped.txt", "/escaped.txt", "C:/escaped.txt", "..\\escaped.txt", "a/../../escaped.txt", "x\x00y",
             "x\ny", "CON", "a" * 300, "é/x", "", "Dataset001_Tiny/x")  # fmt: skip
    while True:
        how = chance.randrange(7)
        if how in (0, 4, 5):
            yield damage(whole, chance) if how == 0 else with_a_wild_field(whole, chance)
            continue
        if how == 6:
            yield packed_otherwise(whole, chance)
            continue
        file = io.BytesIO(rezipped(whole, lambda name, data: damage(data, chance) if chance.random() < 0.2 else data))
        with zipfile.ZipFile(file, "a") as archive:
            info = zipfile.ZipInfo(chance.choice(names) or "x")
            if how == 1:
                info.external_attr = chance.choice((0o120777, 0o010644, 0o040755)) << 16  # a link, a pipe, a folder
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, b"/" if how < 3 else bytes(2_000_000))
        yield file.getvalue()


_WILD = (
    b"0",
    b"-1",
    b"3",
    b"1e9",
    b"2147483648",
    b"9" * 30,
    b"nan",
    b"x",
    b"",
    b"LOCAL",
    b"LIST",
    b"%s%n",
    b"\x00",
    b"../secret.raw",
)


def wild_header(data, chance):
    """Return an image whose header is text with a line changed, doubled, left out, put elsewhere, or one more."""
    end = data.find(b"ElementDataFile")
    end = data.index(b"\n", end) + 1 if end >= 0 else data.index(b"\n\n") + 1
    lines, voxels = data[:end].splitlines(keepends=True), data[end:]
    at, how = chance.randrange(len(lines)), chance.randrange(6)
    key, sign, value = lines[at].partition(b"=" if b"=" in lines[at] else b":")
    if how == 0:
        words = value.split() or [b""]
        words[chance.randrange(len(words))] = chance.choice(_WILD)
        lines[at] = key + sign + b" " + b" ".join(words) + b"\n"
    elif how == 1:
        lines[at] = key + sign + b" " + chance.choice(_WILD) + b"\n"
    elif how == 2:
        lines.insert(chance.randrange(len(lines)), lines[at])
    elif how == 3:
        del lines[at]
    elif how == 4:
        lines[at] = chance.choice((b" ", b"\t", b"#", b"\r")) + key + chance.choice((b":", b" = ", b":=", b"=")) + value
    else:
        more = chance.choice((b"ElementDataFile", b"data file", b"ElementNumberOfChannels", b"HeaderSize", b"CompressedDataSize",
                              b"byte skip", b"space dimension", b"ObjectSubType", b"kinds", b"encoding", b"CompressedData"))  # fmt: skip
        lines.insert(at, more + (b": " if data.startswith(b"NRRD") else b" = ") + chance.choice(_WILD) + b"\n")
    return b"".join(lines) + voxels


def wild_tag(data, chance):
    """Return a TIFF with one field of one of its tags changed."""
    changed = bytearray(data)
    begin = int.from_bytes(data[4:8], "little")
    tags = int.from_bytes(data[begin : begin + 2], "little")
    at = begin + 2 + 12 * chance.randrange(max(1, tags))
    place, size = chance.choice(((0, 2), (2, 2), (4, 4), (8, 4)))
    value = chance.choice((0, 1, 3, 7, 12, 255, 2**16 - 1, 2**31 - 1, 2**32 - 1, chance.randrange(2**32), len(data)))
    changed[at + place : at + place + size] = (value % 256**size).to_bytes(size, "little")
    return bytes(changed)


def images(chance, folder):
    """Give (ending, bytes) of images of every format, damaged somewhere, with wild headers or tags."""
    (folder.parents[1] / "secret.raw").write_bytes(SECRET * 10_000)
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
        ending, how = chance.choice(IMAGES), damage
        if chance.random() < 0.6:
            how = {".nrrd": wild_header, ".mha": wild_header, ".mhd": wild_header, ".tif": wild_tag}.get(ending, damage)
        yield ending, how(wholes[ending], chance)


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


_TABLES = {
    "kinds": "case,object,size,kind\na,1,64,cell\na,2,64,debris\nb,1,9,\"a \"\"b\"\", c\"\n",
    "quality": "image,mean Dice,mean low,mean high,organ Dice,unlike\na,0.5,0.4,0.6,0.5,\nb,,,,0.1,\"x; y\"\n",
    "groups": "case,group\na,p1\nb,p1\nc,p2\n",
    "codes": text_of_codes({name: codes_of(name, n) for n, name in enumerate(("left kidney", "liver", "gizmo"), 1)}),
}  # fmt: skip


def tables(chance):
    """Give (ending, bytes) of tables that people fill in, damaged or with a cell or a column changed; for ever."""
    while True:
        kind = chance.choice(list(_TABLES))
        text = _TABLES[kind]
        if chance.random() < 0.6:
            cells = [line.split(",") for line in text.splitlines()]
            row = chance.choice(cells)
            at = chance.randrange(len(row))
            row[at : at + chance.choice((1, 1, 0))] = chance.choice(
                (
                    [],
                    [""],
                    ["x"],
                    ["-1"],
                    ["9" * 5_000],
                    ['"'],
                    ["a" * 200_000],
                    ["\x1b[2J"],
                    ["=1+1"],
                    ["../x"],
                    ["\0"],
                    ["nan"],
                )
            )
            text = "\n".join(",".join(line) for line in cells)
        data = text.encode(chance.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32")))
        yield f".{kind}.csv", damage(data, chance) if chance.random() < 0.5 else data


# --- whoever reads such files ----------------------------------------------------------------------------------------


def read_image(path):
    """Read an image as every job does that takes one."""
    refused = []
    for act in (read_header, lambda path: _secret(read_volume([path]).array), read_labels, _read_a_part):
        try:
            act(path)
        except NnunetError as error:
            if isinstance(for_people(error), InternalError):
                raise
            refused.append(error)
    if refused:
        raise refused[0]


def _read_a_part(path):
    """Read as jobs do that take a part of a large image."""
    image = open_image([path])
    _secret(image.read([(0, min(n, 3)) for n in image.shape_3d]))


def _secret(array):
    assert not array.size or not (array == SECRET[0]).all(), "it was followed out of its folder"


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


def read_table(path):
    """Read a table as whoever needs it does."""
    kind = path.suffixes[0][1:]
    if kind == "kinds":
        return read_kinds(path)
    if kind == "codes":
        return read_codes(path)
    if kind == "groups":
        return read_groups(["a", "b", "c"], str(path))
    return QualityTable(path, ["a", "b"])
