"""Models that people packed themselves: without their folder, with names of Windows, of nnU-Net v1."""

from __future__ import annotations

import tarfile
import zipfile

import pytest
import torch

from helpers import Recipe, make_model
from napari_nnunet.errors import ModelError
from napari_nnunet.events import drain
from napari_nnunet.formats.model.bundle import inspect
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.sharing.install import install_zip
from napari_nnunet.schema.requests.sharing import InstallRequest


def _workspace(tmp_path):
    return Workspace.at(tmp_path / "yours")


def _files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) if folder.exists() else []


def _packed(model, path, name):
    """Return a zip of a model's folder as people make them; ``name`` says how a file is called in it."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in model.folder.rglob("*") if p.is_file()):
            archive.write(file, name(str(file.relative_to(model.folder))))
    return path


PACKINGS = {
    "bare": lambda name: name,
    "renamed": lambda name: f"my model/{name}",
    "deep": lambda name: f"a/b/my model/{name}",
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("replaced", [False, True])
def test_a_model_packed_without_its_folder_gets_its_name_and_replaces_no_other(tmp_path, packing, replaced):
    model = make_model(tmp_path / "mine", Recipe())
    other = make_model(tmp_path / "yours" / "nnUNet_results", Recipe(configuration="2d"))
    path = _packed(model, tmp_path / "model.zip", PACKINGS[packing])
    before = _files(other.folder)
    installed = drain(install_zip(_workspace(tmp_path), InstallRequest(source=path, replace_models=replaced)))
    assert [folder.name for folder in installed.folders] == [model.folder.name]
    assert installed.folders[0].parent == other.folder.parent
    assert _files(other.folder) == before
    assert _files(installed.folders[0]) == _files(model.folder)


def test_a_model_packed_without_its_folder_is_replaced_only_where_it_has_that_name(tmp_path):
    model = make_model(tmp_path / "mine", Recipe())
    path = _packed(model, tmp_path / "model.zip", PACKINGS["bare"])
    drain(install_zip(_workspace(tmp_path), InstallRequest(source=path)))
    with pytest.raises(ModelError, match=f"{model.folder.name} of .* exists in"):
        drain(install_zip(_workspace(tmp_path), InstallRequest(source=path)))
    drain(install_zip(_workspace(tmp_path), InstallRequest(source=path, replace_models=True)))
    assert any("trash" in name for name in _files(_workspace(tmp_path).results))


def test_a_model_whose_name_cannot_be_known_is_refused_with_how_to_pack_it(tmp_path):
    model = make_model(tmp_path / "mine", Recipe())
    checkpoint = model.folder / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(checkpoint, weights_only=False), "init_args": {}}, checkpoint)
    with pytest.raises(ModelError, match="a model without its folder.*Pack the folder itself"):
        inspect(_packed(model, tmp_path / "model.zip", PACKINGS["bare"]))


def test_a_zip_with_entries_of_folders_and_names_of_windows_is_installed(tmp_path):
    model = make_model(tmp_path / "mine", Recipe())
    top = f"{model.folder.parent.name}\\{model.folder.name}"
    path = _packed(model, tmp_path / "model.zip", lambda name: f"{top}\\{name.replace('/', chr(92))}")
    with zipfile.ZipFile(path, "a") as archive:
        for folder in (
            f"{model.folder.parent.name}\\",
            f"{top}\\",
            "__MACOSX/",
            f"__MACOSX/{model.folder.name}/._plans.json",
        ):
            archive.writestr(folder, b"")
    installed = drain(install_zip(_workspace(tmp_path), InstallRequest(source=path)))
    assert _files(installed.folders[0]) == _files(model.folder)


def test_a_zip_of_a_model_of_nnunet_v1_names_the_way_to_use_it(tmp_path):
    path = tmp_path / "Task017_Ball.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("3d_fullres/Task017_Ball/nnUNetTrainerV2__nnUNetPlansv2.1/plans.pkl", b"")
    with pytest.raises(ModelError, match="contains a model of nnU-Net v1.*import_old_nnunet_model"):
        inspect(path)


def test_a_zip_with_a_file_and_a_folder_of_one_name_is_refused(tmp_path):
    model = make_model(tmp_path / "mine", Recipe())
    path = _packed(model, tmp_path / "model.zip", lambda name: f"{model.folder.parent.name}/{model.folder.name}/{name}")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{model.folder.parent.name}/{model.folder.name}/fold_0", b"")
    with pytest.raises(ModelError, match="both as a file and as a folder"):
        inspect(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.tar.gz", b"\x1f\x8b\x08\0\0\0\0\0", "is packed with gzip"),
        ("model.7z", b"7z\xbc\xaf\x27\x1c\0\0", "is a 7z archive"),
        ("plans.json", b'{"a": 1}', "is a text file, not a zip"),
        ("model.zip", b"PK\x03\x04abcd", "not a complete zip"),
        ("folder", None, "is a folder; a zip with a model is expected"),
    ],
)
def test_what_is_given_for_a_zip_is_named_as_what_it_is(tmp_path, name, content, words):
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        inspect(path)


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ({"PLANS.json": b"{}"}, "which are one file on Windows and macOS"),
        ({"Fold_0/x.pth": b"", "fold_0/X.pth": b""}, "which are one file on Windows and macOS"),
        ({"fold_0/a:b.txt": b"x"}, "cannot be a file on every system: it holds one of"),
        ({"v1./x.txt": b"x"}, "cannot be a file on every system: it ends in a dot"),
    ],
)
def test_names_that_other_systems_lack_are_told_from_those_that_lead_elsewhere(tmp_path, added, words):
    path = _packed(make_model(tmp_path / "mine", Recipe()), tmp_path / "model.zip", PACKINGS["bare"])
    with zipfile.ZipFile(path, "a") as archive:
        for name, content in added.items():
            archive.writestr(name, content)
    with pytest.raises(ModelError, match=words):
        inspect(path)


def test_a_zip_within_a_zip_and_a_tar_archive_are_named(tmp_path):
    inner = _packed(make_model(tmp_path / "mine", Recipe()), tmp_path / "model.zip", PACKINGS["bare"])
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, "share/model.zip")
    with pytest.raises(ModelError, match=r"Unpack it, and install share/model\.zip if that holds the model"):
        inspect(tmp_path / "outer.zip")
    with tarfile.open(tmp_path / "tar.zip", "w") as archive:
        archive.add(inner, "model.zip")
    with pytest.raises(ModelError, match="is a tar archive, not a zip"):
        inspect(tmp_path / "tar.zip")


@pytest.mark.parametrize("mark", [" (1)", " - Copy", " - Copy (2)", " copy", " 2"])
def test_marks_of_copies_are_no_part_of_the_names_of_models(tmp_path, mark):
    """A configuration '2d (1)' or a second dataset of the same number could not be asked for."""
    model = make_model(tmp_path / "mine", Recipe())
    names = f"{model.folder.parent.name}{mark}/{model.folder.name}{mark}"
    path = _packed(model, tmp_path / "model.zip", lambda name: f"{names}/{name}")
    found = inspect(path)
    assert (found.dataset, found.models) == (model.folder.parent.name, (model.folder.name,))
