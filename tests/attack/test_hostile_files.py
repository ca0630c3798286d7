"""Files from other hands: read, or refused in a sentence; nothing in them runs, and nothing leaves its folder.

The quick part takes a few of every kind; ``tox run -e attack`` as many as ``NAPARI_NNUNET_ATTACK`` says.
"""

from __future__ import annotations

import random

import hostile
import pytest
from tally import SEED, TRIES, contents, numbers

from helpers import Recipe, make_model
from napari_nnunet.events import drain
from napari_nnunet.formats.model.bundle import inspect
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.jobs.sharing.install import install_zip
from napari_nnunet.schema.requests.sharing import ExportSettings, InstallRequest

QUICK = 40  # of every kind
_KINDS = 8
QUICKER = {"DICOM": 10}
#: What makes and reads them is an extra.
EXTRAS = {"DICOM": ("highdicom", "dicom"), "zarr": ("zarr", "large")}


def files(kind, chance, folder, canary):
    """Give the paths of hostile files of a kind, each written when it is asked for."""
    (folder / "whole").mkdir()
    if kind == "images":
        source = hostile.images(chance, folder / "whole")
    elif kind == "arrays":
        source = hostile.arrays(chance, folder / "whole")
    elif kind == "DICOM":
        import hostile_dicom

        source = hostile_dicom.dicoms(chance, folder / "whole")
    elif kind == "zarr":
        import hostile_zarr

        source = hostile_zarr.zarrs(chance, folder)
    elif kind == "tables":
        source = hostile.tables(chance)
    elif kind == "checkpoints":
        source = ((".pth", data) for data in hostile.checkpoints(chance, canary, folder / "whole"))
    else:
        source = ((".pkl", data) for data in hostile.pickles(chance, canary))
    for ending, data in source:
        path = folder / f"{'c' if kind == 'arrays' else 'file'}{ending}"
        wholes = {}
        if kind == "arrays":  # the case's other files are whole
            wholes = {p.name: p.read_bytes() for p in (folder / "whole").glob("c*")}
        for name, content in {**wholes, path.name: data}.items():
            (folder / name).write_bytes(content)
        yield path


def read_dicom(path):
    """Read a DICOM file; what makes and reads them is an extra."""
    import hostile_dicom

    hostile_dicom.read_dicom(path)


def read_zarr(path):
    """Read an image in zarr."""
    import hostile_zarr

    hostile_zarr.read_zarr(path)


READERS = {
    "images": hostile.read_image,
    "arrays": hostile.read_array,
    "checkpoints": hostile.read_weights,
    "pickles": hostile.read_pickles,
    "DICOM": read_dicom,
    "zarr": read_zarr,
    "tables": hostile.read_table,
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.filterwarnings("ignore")  # readers of other people's libraries warn of what they meet
def test_a_hostile_file_is_read_or_refused_in_a_sentence(tmp_path, figures, kind):
    if kind in EXTRAS:
        name, extra = EXTRAS[kind]
        pytest.importorskip(name, reason=f"{name} is not installed: it comes with napari-nnunet[{extra}]")
    canary = tmp_path / "executed"
    (tmp_path / "here").mkdir()
    source = files(kind, random.Random(f"{SEED} {kind}"), tmp_path / "here", canary)
    for number, path in zip(numbers("files", _KINDS, TRIES, QUICKER.get(kind, QUICK)), source, strict=False):
        figures.attempt(kind, lambda path=path: READERS[kind](path), f"number {number}, {path.name}", canary)
    figures.require_none()
    assert figures.counts[kind]["refused"] > 0


@pytest.mark.filterwarnings("ignore")
def test_a_zip_is_installed_whole_or_refused_and_leaves_nothing(tmp_path, figures):
    model = make_model(tmp_path / "mine", Recipe())
    drain(export_models([model], tmp_path / "m.zip", ExportSettings(light=True)))
    canary, chance = tmp_path / "yours" / "executed", random.Random(f"{SEED} zips")
    (tmp_path / "yours").mkdir()
    before = contents(tmp_path)
    source = hostile.zips(chance, (tmp_path / "m.zip").read_bytes())
    for number, data in zip(numbers("files", _KINDS, TRIES, QUICK), source, strict=False):
        path, workspace = tmp_path / ".sent.zip", Workspace.at(tmp_path / ".workspace" / str(number))
        path.write_bytes(data)
        about = f"number {number}"
        figures.attempt("zips", lambda path=path: inspect(path), about, canary)
        request = InstallRequest(source=path)
        figures.attempt("zips", lambda r=request, w=workspace: drain(install_zip(w, r)), about, canary)
        models = list(workspace.results.rglob("plans.json")) if workspace.results.is_dir() else []
        if contents(tmp_path) != before or any(not p.with_name("dataset.json").is_file() for p in models):
            figures.note("zips", "escaped", about)
            break
    figures.require_none()
    assert figures.counts["zips"]["refused"] > 0
