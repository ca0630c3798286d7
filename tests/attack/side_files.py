"""JSON files of large images and of models that were carried elsewhere: whole ones, and whoever reads them."""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np

import napari_nnunet.resources
from formats_large import ome_zarr
from helpers import Recipe, make_model, smooth_image
from napari_nnunet.errors import ModelError
from napari_nnunet.events import Pump, drain
from napari_nnunet.formats.large.journal import NAME
from napari_nnunet.formats.large.opening import Say, image_of, open_image
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.jobs.large.files import nearest_level
from napari_nnunet.jobs.large.predict_image import predict_image
from napari_nnunet.jobs.sharing.carry import export_model
from napari_nnunet.jobs.sharing.catalogue import list_models
from napari_nnunet.processes.cluster.where import where
from napari_nnunet.schema.requests.large import PredictImageSettings
from napari_nnunet.schema.requests.sharing import CarryRequest, ListModelsRequest

#: An event of a training.
EPOCH = {"time": 1.0, "kind": "epoch_done", "epoch": 1, "epochs": 3, "train_loss": 0.1, "val_loss": 0.1, "dice": [0.5, None],
         "names": ["a", "b"], "average": 0.5, "rate": 0.1, "seconds": 1.0, "seconds_left": 2.0, "waiting": 0.5}  # fmt: skip
_IMAGE = np.random.default_rng(0).integers(1, 4000, size=(9, 20, 30)).astype(np.uint16)
_SETTINGS = {"device": "cpu", "backend": "torch", "precision": "float32", "chunk": (4, 10, 10), "mirroring": False}


def _folder():
    return Path(tempfile.mkdtemp(prefix="side files "))


@functools.cache
def carried():
    """Return the folder of a carried model, and its program."""
    folder = _folder()
    request = CarryRequest(model=make_model(folder, Recipe(patch=(4, 8, 8))).folder, target=folder / "m.zip")
    drain(export_model(request))
    with zipfile.ZipFile(folder / "m.zip") as archive:
        archive.extractall(folder / "there")
    where = Path(napari_nnunet.resources.__file__).with_name("segment.py")
    spec = importlib.util.spec_from_file_location("carried_attacked", where)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return folder / "there", program


def read_description(path):
    """Segment with a carried model, as its program does."""
    folder, program = carried()
    (folder / "description.json").write_bytes(path.read_bytes())
    try:
        labels = program.Carried(folder, threads=1).segment(_IMAGE[:4, :8, :8], mirroring=False)
    except ValueError as error:  # what the program tells in a sentence
        raise ModelError(str(error)) from error
    assert labels.shape == (4, 8, 8)


@functools.cache
def _zarr(version):
    return ome_zarr(
        _folder() / "a.zarr", [_IMAGE, _IMAGE[::2, ::2, ::2]], scales=[[2, 1, 1], [4, 2, 2]], version=version
    )


def _metadata(version, of):
    return json.loads((_zarr(version) / of).read_text(encoding="utf-8"))


@functools.cache
def _model():
    return load_model(make_model(_folder(), Recipe(patch=(4, 8, 8))).folder)


def _read_zarr(version, of, path):
    """Open an OME-Zarr image of which one file is this, and read a box of it."""
    target = _zarr(version) / of
    whole = target.read_bytes()
    target.write_bytes(path.read_bytes())
    try:
        image = open_image([_zarr(version)], Say(spacing=(2.0, 1.0, 1.0), best=nearest_level(_model())))
        assert image.read([(0, min(2, n)) for n in image.shape_3d]).shape[0] == image.channels
        assert image.stamp().files < 1_000
    finally:
        target.write_bytes(whole)


@functools.cache
def _begun():
    """Return what a cancelled job left of a large image."""
    target = _folder() / "large.zarr"
    job = predict_image(_model(), _large(), target, PredictImageSettings(**_SETTINGS))
    with Pump(job) as pump:
        for event in pump:
            if event.kind == "painted":
                break
    return target, target.with_name("large.zarr.unfinished")


def _large():
    return image_of(smooth_image((8, 10, 20)), (1.0, 1.0, 1.0), "CZYX")


def _lines():
    return [json.loads(line) for line in (_begun()[1] / NAME).read_text(encoding="utf-8").splitlines()]


def read_journal(path):
    """Continue a large image whose journal has these lines."""
    target, begun = _begun()
    kept = begun.with_name("kept")
    if not kept.exists():
        shutil.copytree(begun, kept)
    for old in (begun, target):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(kept, begun)
    content = path.read_bytes()
    try:
        lines = json.loads(content)
        content = "\n".join(map(json.dumps, lines if isinstance(lines, list) else [lines])).encode()
    except (ValueError, RecursionError):
        pass  # no lines then, but bytes as they are
    (begun / NAME).write_bytes(content)
    found = drain(predict_image(_model(), _large(), target, PredictImageSettings(**_SETTINGS, carry_on=True)))
    assert sum(found.counts) == 8 * 10 * 20


_CATALOGUE = {
    "format_version": 1,
    "models": [
        {"name": "sent", "segments": ["organ"], "modality": "CT", "licence": "CC0", "size": 3_000_000, "sha256": "a" * 64,
         "url": "sent.zip", "title": "Sent", "description": "", "authors": "A. B.", "citation": ""},
        {"name": "other", "segments": ["a", "b"], "modality": "MR", "licence": "MIT", "size": 1, "sha256": "b" * 64,
         "url": "https://lab.org/other.zip"},
    ],
}  # fmt: skip


def read_catalogue(path):
    """Read a catalogue, and all that is said of its models."""
    found = drain(list_models(ListModelsRequest(catalogue=str(path))))
    for entry in found.entries:
        assert found.entry(entry.name).text
    with suppress(ModelError):
        found.entry("no such model")


_QUEUE = {"kind": "slurm", "workers": 2, "cores": 4, "memory": "32GB", "gpu": True, "walltime": "12:00:00", "queue": "long",
          "account": "lab", "directives": ["--constraint=a100"], "setup": ["module load x"], "interface": "ib0",
          "python": "/opt/python", "folder": "/tmp/jobs"}  # fmt: skip


def read_settings(path):
    """Read settings of a queueing system, which are TOML."""
    content = path.read_bytes()
    with suppress(ValueError, RecursionError, AttributeError):  # bytes as they are then
        content = "".join(f"{key} = {json.dumps(value)}\n" for key, value in json.loads(content).items()).encode()
    settings = path.with_suffix(".toml")
    settings.write_bytes(content)
    place = where(str(settings))
    assert place.gigabytes >= 0 and not any(letter < " " for letter in str(place.logs))


_ZARR = {"levels 0.4": ("0.4", ".zattrs"), "levels 0.5": ("0.5", "zarr.json"), "array 2": ("0.4", "0/.zarray"),
         "array 3": ("0.5", "0/zarr.json")}  # fmt: skip
#: What makes a whole one, and what reads it.
SIDE_FILES = {
    "description": (
        lambda: json.loads((carried()[0] / "description.json").read_text(encoding="utf-8")),
        read_description,
    ),
    "large journal": (_lines, read_journal),
    "catalogue": (lambda: _CATALOGUE, read_catalogue),
    "settings of a cluster": (lambda: _QUEUE, read_settings),
    **{name: (functools.partial(_metadata, *of), functools.partial(_read_zarr, *of)) for name, of in _ZARR.items()},
}
