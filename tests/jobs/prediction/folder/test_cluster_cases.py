"""Cases on a cluster: the same files as in one process, whatever happens to workers."""

import json
import os

import numpy as np
import psutil
import pytest

from helpers import TRAINED, make_trainable, read_probabilities, smooth_image, write_nifti
from napari_nnunet.cli.main import main
from napari_nnunet.events import CaseDone, CaseFailed, Note, drain
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.schema.requests.prediction import PredictFolderRequest

# Workers load torch, which takes seconds.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("known_arithmetic")]
HOW = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False, "threads": 1}


def images(folder, count=4, shape=(10, 24, 22)):
    folder.mkdir()
    for i in range(count):
        write_nifti(folder / f"c{i}_0000.nii.gz", smooth_image(shape, seed=i)[0])
    return folder


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_folder_is_predicted_as_in_one_process(tmp_path, model, cluster):
    source, said = images(tmp_path / "in"), []
    whole = {"source": source, "keep_finished": False, "table": True, "probabilities": True, **HOW}
    here = drain(predict_folder(model, PredictFolderRequest.of(target=tmp_path / "here", **whole)))
    there = PredictFolderRequest.of(target=tmp_path / "there", cluster=cluster.address, **whole)
    found = drain(predict_folder(model, there), said.append)
    assert sorted(found.done) == list(here.done) == ["c0", "c1", "c2", "c3"]
    assert [e.total for e in said if isinstance(e, CaseDone)] == [4] * 4
    assert any("2 workers on 1 computer" in e.text for e in said if isinstance(e, Note))
    one, other = files_of(tmp_path / "here"), files_of(tmp_path / "there")
    assert set(one) == set(other)
    for name in one:
        if name.endswith((".nii.gz", ".pkl")):
            assert one[name] == other[name], name
        if name.endswith(".npz"):
            whole, parts = (read_probabilities(tmp_path / place / name) for place in ("here", "there"))
            assert np.array_equal(whole, parts), name
    assert json.loads(one["recipe.json"]) == json.loads(other["recipe.json"])


def test_a_bad_case_ends_no_other(tmp_path, model, cluster):
    source, said = images(tmp_path / "in", 3), []
    (source / "c1_0000.nii.gz").write_bytes(b"no image")
    request = PredictFolderRequest.of(source=source, target=tmp_path / "out", cluster=cluster.address, **HOW)
    found = drain(predict_folder(model, request), said.append)
    assert sorted(found.done) == ["c0", "c2"] and list(found.failed) == ["c1"]
    (failed,) = [e for e in said if isinstance(e, CaseFailed)]
    assert "c1_0000.nii.gz" in failed.message


def test_finished_cases_are_not_computed_again(tmp_path, model, cluster):
    source = images(tmp_path / "in", 2)
    request = PredictFolderRequest.of(source=source, target=tmp_path / "out", cluster=cluster.address, **HOW)
    drain(predict_folder(model, request))
    (tmp_path / "out" / "c1.nii.gz").unlink()
    before = files_of(tmp_path / "out")
    found = drain(predict_folder(model, request.replace(keep_finished=True)))
    assert (found.done, found.skipped) == (("c1",), ("c0",))
    assert files_of(tmp_path / "out")["c0.nii.gz"] == before["c0.nii.gz"]


def test_a_case_whose_worker_is_killed_is_segmented_by_another(tmp_path, model, own_cluster):
    source, cluster, killed = images(tmp_path / "in", 5, (24, 40, 40)), own_cluster(), []
    nannies = cluster.processes[1:]

    def listen(event):
        if isinstance(event, CaseDone) and not killed:
            killed.append(cluster.kill_one(nannies[0]))

    request = PredictFolderRequest.of(source=source, target=tmp_path / "out", cluster=cluster.address, **HOW)
    found = drain(predict_folder(model, request), listen)
    assert killed and not found.failed and len(found.done) == 5
    here = drain(predict_folder(model, request.replace(cluster=None, target=tmp_path / "here")))
    assert len(here.done) == 5
    for i in range(5):
        assert (tmp_path / "out" / f"c{i}.nii.gz").read_bytes() == (tmp_path / "here" / f"c{i}.nii.gz").read_bytes()


def workers_here():
    """Return the workers that this process started, those of other tests too."""
    found = psutil.process_iter(["pid", "ppid", "cmdline"])
    own = [process.info for process in found if process.info["ppid"] == os.getpid()]
    return {process["pid"] for process in own if "distributed.cli.dask_worker" in (process["cmdline"] or ())}


def test_workers_of_this_computer_are_started_for_the_command_and_end_with_it(tmp_path, model, capsys):
    source, before = images(tmp_path / "in", 3), workers_here()
    words = ["-m", model.folder, "-i", source, "-o", tmp_path / "out", "--cluster", "local:2", "--no_pbar"]
    how = ["-device", "cpu", "--backend", "torch", "--precision", "float32", "--disable_tta"]
    assert main(["predict_from_modelfolder", *map(str, words), *how]) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("c*")) == ["c0.nii.gz", "c1.nii.gz", "c2.nii.gz"]
    assert "2 workers on 1 computer" in capsys.readouterr().err
    assert workers_here() == before


def test_preprocessing_and_evaluating_give_the_same_files(tmp_path, cluster, capsys):
    for place, where in (("here", ()), ("there", ("--cluster", cluster.address))):
        root = make_trainable(tmp_path / place, cases=3)
        workspace = ("--workspace", str(root), "--no_pbar")
        assert main(["preprocess", "-d", TRAINED, "-c", "3d_fullres", "--clean", *where, *workspace]) == 0
        labels = str(root / "nnUNet_raw" / TRAINED / "labelsTr")
        summary = tmp_path / f"{place}.json"
        words = ["evaluate_simple", labels, labels, "-l", "1", "-o", str(summary), *where, *workspace]
        assert main(words) == 0
    made = {p: sorted((tmp_path / p / "nnUNet_preprocessed").rglob("*.b2nd")) for p in ("here", "there")}
    assert len(made["here"]) >= 3
    for one, other in zip(made["here"], made["there"], strict=True):
        assert one.name == other.name and one.read_bytes() == other.read_bytes()
    scores = [
        json.loads((tmp_path / f"{place}.json").read_text(encoding="utf-8"))["mean"] for place in ("here", "there")
    ]
    assert scores[0] == scores[1]
    assert "2 workers on 1 computer" in capsys.readouterr().err
