"""kill -9 at any instant, and two at once: what was saved is whole, and the same command ends with the same files.

The quick part kills every job that needs no network once; ``tox run -e attack`` kills each twenty times and starts each
twice at once twenty times, as long as its share of the time lasts.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest
from tally import MINUTES, SEED, TRIES, contents

from choices import member_folder, validated
from helpers import TRAINED, Recipe, make_dataset, make_model, make_trainable, smooth_image, write_nifti
from napari_nnunet.events import drain
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.schema.requests.sharing import ExportSettings

KILLS = 20
#: Dates, times, process numbers and paths differ between two runs of anything.
_NEVER_THE_SAME = ("recipe.json", "debug.json", "events.jsonl", "progress.png", "summary.json", "inference_instructions.txt",
                   "inference_information.json")  # fmt: skip
_TIMES = ("training_log", "film/", ".cases.jsonl")  # a journal has a line for every case, in the order of their ends
_SHORT = ("--epochs", "3", "--iterations", "3", "--validation-iterations", "2", "--workers", "0")
_SHARE = 3  # of the time, for all jobs together


@dataclass(frozen=True)
class Work:
    """A job that writes.

    Parameters
    ----------
    words : tuple of str
        Its command; {root} is the folder that holds everything.
    makes : str
        The folder of its results, below the root.
    make : callable
        Fills the root with what it needs.
    again : tuple of str
        What is added when it is run again.
    """

    words: tuple[str, ...]
    makes: str
    make: object
    again: tuple[str, ...] = ()


def _images(root):
    (root / "in").mkdir(parents=True)
    for i in range(3):
        write_nifti(root / "in" / f"c{i}_0000.nii.gz", smooth_image((12, 20, 20), seed=i)[0])


def for_predict(root):
    make_model(root / "m", Recipe())
    _images(root)


def for_import(root):
    folder = make_dataset(root / "source", shape=(6, 8, 7))
    (folder / "imagesTr").rename(root / "images")
    (folder / "labelsTr").rename(root / "masks")
    for path in (root / "images").iterdir():
        path.rename(path.with_name(path.name.replace("_0000", "")))


def for_install(root):
    drain(export_models([make_model(root / "m", Recipe())], root / "m.zip", ExportSettings(light=True)))


def for_preprocess(root):
    make_trainable(root, cases=3)
    shutil.rmtree(root / "nnUNet_preprocessed" / TRAINED / "nnUNetPlans_3d_fullres")
    for path in (root / "nnUNet_preprocessed" / TRAINED).glob("*.cases.jsonl"):
        path.unlink()


def for_ensemble(root):
    for i, name in enumerate("ab"):
        member_folder(root / name, seed=i)


def for_best(root):
    for i, configuration in enumerate(("2d", "3d_fullres")):
        validated(root, configuration, (0, 1), quality=0.6 + i / 10)


WORKS = {
    "import": Work(("import_folders", "-i", "{root}/images", "-m", "{root}/masks", "-n", "New"), "nnUNet_raw", for_import),
    "install": Work(("install_pretrained_model_from_zip", "{root}/m.zip"), "nnUNet_results", for_install),
    "predict": Work(("predict_from_modelfolder", "-i", "{root}/in", "-o", "{root}/out", "-m",
                     "{root}/m/Dataset001_Tiny/nnUNetTrainer__nnUNetPlans__3d_fullres", "-device", "cpu"),
                    "out", for_predict, ("--continue_prediction",)),
    "preprocess": Work(("preprocess", "-d", TRAINED, "-np", "0"), "nnUNet_preprocessed", for_preprocess),
    "train": Work(("train", TRAINED, "3d_fullres", "0", "-device", "cpu", *_SHORT), "nnUNet_results",
                  lambda root: make_trainable(root), ("--c",)),
    "ensemble": Work(("ensemble", "-i", "{root}/a", "{root}/b", "-o", "{root}/out", "-np", "0"), "out", for_ensemble),
    "find best": Work(("find_best_configuration", "Dataset001_Tiny", "-c", "2d", "3d_fullres", "-f", "0", "1", "-np", "0"),
                      "nnUNet_results", for_best),
}  # fmt: skip
QUICK = ("import", "ensemble")


def start(work, root, *more):
    words = [word.format(root=root) for word in (*work.words, *more)]
    return subprocess.Popen(
        [sys.executable, "-m", "napari_nnunet", *words, "--workspace", str(root), "--no_pbar"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def run(work, root, *more):
    process = start(work, root, *more)
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


def results(work, root):
    """Return what a job made, without what never is the same; of checkpoints their weights."""
    found = contents(root / work.makes, _NEVER_THE_SAME)
    found = {name: data for name, data in found.items() if not any(part in name for part in _TIMES)}
    for name in [name for name in found if name.endswith(".pth")]:
        weights = read_raw(root / work.makes / name)["network_weights"]
        found[name] = b"".join(np.ascontiguousarray(tensor.numpy()).tobytes() for tensor in weights.values())
    return {name: data.replace(str(root).encode(), b"ROOT") for name, data in found.items()}


def others(work, root):
    return {name: data for name, data in contents(root).items() if not name.startswith((work.makes, "nnUNet_"))}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
@pytest.mark.parametrize("name", WORKS)
def test_a_job_that_was_killed_is_run_again_and_ends_the_same(tmp_path, figures, name):
    if not TRIES and name not in QUICK:
        pytest.skip("in the whole attack only; test_resuming and the tests of each job kill it, too")
    work, chance = WORKS[name], random.Random(f"{SEED} {name}")
    fresh, whole = tmp_path / "fresh", tmp_path / "whole"
    work.make(fresh)
    shutil.copytree(fresh, whole)
    begun = time.monotonic()
    status, said = run(work, whole)
    lasted = time.monotonic() - begun
    assert status == 0, said
    expected = results(work, whole)
    assert expected
    until = time.monotonic() + MINUTES * 60 / _SHARE / len(WORKS)
    for number in range(KILLS if TRIES else 1):
        if TRIES and time.monotonic() > until:
            break
        for kind, act in (("killed", _killed), ("two at once", _two_at_once)):
            root = tmp_path / "root"
            shutil.copytree(fresh, root)
            before = others(work, root)
            after = chance.uniform(0.3, 1.0) * lasted
            said = act(work, root, after, name)
            if said is None and results(work, root) != expected:
                found = results(work, root)
                said = f"differ: {[n for n in {**found, **expected} if found.get(n) != expected.get(n)][:5]}"
            if said is None and others(work, root) != before:
                said = "files of others are not what they were"
            figures.note(
                kind, "harmless" if said is None else "lost", f"{name}, number {number}, after {after:.2f} s: {said}"
            )
            shutil.rmtree(root)
    figures.require_none()


def _killed(work, root, after, name):
    """Kill a job and run it again; return what is wrong, None if nothing is."""
    process = start(work, root)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=after)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    ended = process.wait()
    process.stderr.close()
    if ended == 0 and name in ("install", "import"):
        return None  # it was quicker than the kill, and a second one would be refused, or be another dataset
    done = name == "install" and (root / work.makes).is_dir() and any((root / work.makes).glob("Dataset*/*/plans.json"))
    done = done or (name == "import" and any((root / work.makes).glob("Dataset*")))
    if done:
        return None  # killed after its last rename
    status, said = run(work, root, *work.again)
    return None if status == 0 else f"status {status}: {said[-300:]}"


def _two_at_once(work, root, after, name):
    """Start a job twice; return what is wrong, None if nothing is."""
    pair = [start(work, root), start(work, root)]
    ends = [(process.communicate(timeout=300)[1], process.returncode) for process in pair]
    good = [said for said, status in ends if status == 0]
    bad = [said for said, status in ends if status != 0]
    if any("Traceback" in said or "fault of the program" in said for said in bad):
        return f"{bad[0][-300:]}"
    if not good:
        return f"neither ended well: {bad}"
    if name == "import" and len(good) == 2:  # each of them made a dataset of its own
        shutil.rmtree(sorted((root / work.makes).glob("Dataset*"))[1])
    for trash in (root / work.makes).rglob("trash*"):
        shutil.rmtree(trash)
    return None
