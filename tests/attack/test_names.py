"""Names come from other people's files and from the command line: none of them leads out of its folder."""

from __future__ import annotations

import json
import os
import sys
import time
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from helpers import DATASET, Recipe, make_dataset, make_model
from napari_nnunet.errors import DatasetError, ModelError, NnunetError, PlanError, ResourceError, SettingsError
from napari_nnunet.events import drain
from napari_nnunet.formats.atomic import written_beside
from napari_nnunet.formats.dataset.case_files import find_cases
from napari_nnunet.formats.dataset.new_dataset import next_dataset_name
from napari_nnunet.formats.dataset.raw_dataset import survey
from napari_nnunet.formats.dataset.raw_writer import check_case_name
from napari_nnunet.formats.model import bundle
from napari_nnunet.formats.preprocessed.plans import read_plans
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.convert import convert_old_nnunet
from napari_nnunet.jobs.planning.plan import plan_experiment
from napari_nnunet.jobs.sharing.import_v1 import import_v1_model
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.names import fault_of, is_dataset_name, is_plain, parse_fold, shown
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.dataset import ConvertOldRequest
from napari_nnunet.schema.requests.planning import PlanRequest
from napari_nnunet.schema.requests.sharing import ImportV1Request

ODD = {
    "": "names no file",
    ".": "names no file",
    "..": "names no file",
    "../../x": "holds one of",
    "a\\b": "holds one of",
    "C:x": "holds one of",
    "a\nb": "control character",
    "a\x1b[31mb": "control character",
    "a\x00b": "control character",
    "a\udcffb": "control character",
    "a\u202egnp.exe": "control character",
    "a.": "ends in a dot or a blank",
    "a ": "ends in a dot or a blank",
    "CON": "for a device",
    "nul.txt": "for a device",
    "Com1 .x": "for a device",
    "a" * 201: "it has 201 bytes",
    "é" * 101: "it has 202 bytes",
}
GOOD = ("nnUNetPlans", "3d_fullres", "la_003", "a.b-c d", "Zähler", "症例1", "CONSOLE", "a" * 200, ".nii.gz")


@pytest.mark.parametrize(("name", "why"), ODD.items(), ids=lambda text: ascii(text)[:12])
def test_what_cannot_be_a_name_is_refused_with_the_reason(name, why):
    assert why in (fault_of(name) or "")


@pytest.mark.parametrize("name", GOOD)
def test_names_people_use_are_allowed(name):
    assert fault_of(name) is None
    assert is_plain(name)


@pytest.mark.parametrize("name", ODD, ids=lambda text: ascii(text)[:12])
def test_plans_name_no_folder_elsewhere(tmp_path, name):
    content = json.loads((make_model(tmp_path, Recipe()).folder / "plans.json").read_text(encoding="utf-8"))
    (configuration,) = content["configurations"].values()
    inside = [("plans_name", {**content, "plans_name": name}), ("name", {**content, "configurations": {name: {}}})]
    if name:
        inside.append(("dataset_name", {**content, "dataset_name": name}))
    for what, changed in inside:
        with pytest.raises(PlanError, match=rf"{what}.*cannot be part of a file name"):
            Plans.parse(changed)
    for key in ("data_identifier", "previous_stage", "next_stage"):
        changed = {**content, "configurations": {"x": {**configuration, key: name}}}
        if name:
            with pytest.raises(PlanError, match=f"{key}.*cannot be part of a file name"):
                Plans.parse(changed).configuration("x")
    with pytest.raises(ModelError, match="cannot be part of the folder's name"):
        ModelName("nnUNetTrainer", name, "2d")


@pytest.mark.parametrize("name", [name for name in ODD if name], ids=lambda text: ascii(text)[:12])
def test_names_on_the_command_line_lead_nowhere_else(tmp_path, name):
    workspace = Workspace.at(make_dataset(tmp_path).parents[1])
    with pytest.raises(NnunetError, match=r"cannot be part of a file name|of the form|neither"):
        workspace.dataset_name(f"Dataset001_{name}" if "/" in name or len(name) > 100 else name)
    with pytest.raises(DatasetError, match=r"cannot be part of a file name"):
        read_plans(workspace.preprocessed / DATASET, name)
    with pytest.raises(DatasetError, match=r"cannot be part of a file name"):
        drain(plan_experiment(workspace, PlanRequest(dataset=DATASET, plans_name=name)))
    if name[0] > "a":
        with pytest.raises(DatasetError, match=r"cannot (be part of a file name|name a case)"):
            check_case_name(name.replace(" ", "\x1b"))


@pytest.mark.parametrize(
    "name", ["Dataset001_../../../x", "Dataset001_a\nb", "Dataset001_a.", f"Dataset001_{'a' * 200}"]
)
def test_a_new_dataset_stays_in_its_folder(tmp_path, name):
    workspace = Workspace.at(tmp_path)
    request = ConvertOldRequest(source=tmp_path, name=name)
    for make in (
        lambda: workspace.dataset_name(name),
        lambda: next_dataset_name(workspace, name),
        lambda: drain(convert_old_nnunet(workspace, request)),
        lambda: drain(import_v1_model(workspace, ImportV1Request(source=tmp_path, name=name))),
    ):
        with pytest.raises(DatasetError, match="cannot be part of a file name"):
            make()
    assert not is_dataset_name(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "CON"])
def test_cases_with_such_names_are_named_and_refused(tmp_path, name):
    folder = make_dataset(tmp_path)
    for part, end in (("imagesTr", "_0000"), ("labelsTr", "")):
        (folder / part / f"c1{end}.nii.gz").rename(folder / part / f"{name}{end}.nii.gz")
    dataset, problems = survey(folder)
    assert [case.name for case in dataset.cases] == ["c0", "c2", "c3"]
    (problem,) = problems
    assert (problem.where, problem.text) == (shown(name), "this case name cannot be part of a file name")
    with pytest.raises(DatasetError) as caught:
        find_cases(folder / "imagesTr", ending=".nii.gz", channels=1)
    assert f"{shown(name)} cannot name a case: " in caught.value.message
    assert "\x1b" not in caught.value.message


def write_zip(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    return path


MODEL = PurePosixPath("Dataset001_A/T__P__2d")
FILES = [str(MODEL / name) for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")]


def test_a_zip_of_as_many_entries_as_are_allowed_is_checked_at_once(tmp_path):
    models = [f"Dataset001_A/T__P{i}__2d/{name}" for i in range(3000) for name in ("plans.json", "dataset.json")]
    models += [f"Dataset001_A/T__P{i}__2d/fold_0/checkpoint_final.pth" for i in range(3000)]
    path = write_zip(tmp_path / "many.zip", models)
    began = time.process_time()
    assert len(bundle.inspect(path).files) == 9000
    assert time.process_time() - began < 5


def test_a_zip_with_more_entries_than_any_model_needs_is_refused(tmp_path):
    path = write_zip(tmp_path / "many.zip", [*FILES, *(str(MODEL / f"x{i}") for i in range(10_000))])
    with pytest.raises(ModelError, match=r"it has 10,003 entries, at most 10,000 are allowed\. Export"):
        bundle.inspect(path)


def test_a_place_of_thousands_of_folders_is_refused(tmp_path):
    path = write_zip(tmp_path / "deep.zip", [*FILES, str(MODEL / ("a/" * 20_000) / "x")])
    with pytest.raises(ModelError, match="Do not trust this file") as caught:
        bundle.inspect(path)
    assert len(caught.value.message) < 1000


def test_numbers_of_any_length_and_in_any_script_are_no_datasets_and_no_folds(tmp_path):
    workspace = Workspace.at(make_dataset(tmp_path).parents[1])
    for number in ("9" * 5_000, "１"):
        with pytest.raises(DatasetError, match="is neither a dataset number nor a name"):
            workspace.dataset_name(number)
        with pytest.raises(SettingsError, match="is not a fold"):
            parse_fold(number)
    with pytest.raises(DatasetError, match="not a valid dataset name"):
        next_dataset_name(workspace, "Dataset００7_A")


@pytest.mark.skipif(sys.platform == "win32", reason="no devices among the files")
def test_no_file_takes_the_place_of_a_device_or_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ResourceError, match="it is a device or a pipe"), written_beside(tmp_path / "pipe") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no such file that refuses to be read")
def test_a_zip_that_cannot_be_read_is_named():
    with pytest.raises(ModelError, match="/proc/self/mem cannot be read"):
        bundle.inspect(Path("/proc/self/mem"))
