"""The recipe is the result: command and Python give the labels of the dock voxel by voxel, whatever the form says."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from napari.layers import Image

from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet.cli import main
from napari_nnunet.engine.choosing.components import take_out
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.results.recipe import as_command, as_methods, as_python
from napari_nnunet.jobs.prediction.predict import predict_series
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.widgets.files.place import STORED
from napari_nnunet.widgets.prediction.request import Choices, resolve
from napari_nnunet.widgets.prediction.result import ResultLayers

SHAPE = (8, 18, 16)

forms = st.fixed_dictionaries(
    {
        "from_file": st.booleans(),
        "typed": st.sampled_from(["", "2 1 1", "1.3 0.9 0.9", "0.05 0.05 0.05"]),
        "region": st.none() | st.tuples(st.integers(0, 3), st.integers(5, 8), st.integers(0, 8), st.integers(10, 18)),
        "time": st.none() | st.integers(0, 1),
        "swapped": st.booleans(),
        "one_layer": st.booleans(),
        "folds": st.sampled_from([(0,), (0, 1)]),
        "mirroring": st.booleans(),
        "step": st.sampled_from([0.5, 0.75, 0.6123456789]),
        "output": st.sampled_from(["Labels", "Labels and probabilities"]),
        "kept": st.sampled_from([(), (1,), ([1, 2],), (2, 1)]),
    }
)


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models"), Recipe(channels=("T1", "T2"), folds=(0, 1))).folder


def _segment(folder, form):
    """Return (recipe, labels, files' arrays, files' spacing) of what the dock does."""
    both = smooth_image(SHAPE, channels=2)
    spacing = (1.5, 0.9, 0.9)
    series = form["time"] is not None
    arrays = [np.stack([array, array[::-1]]) if series else array for array in both]
    place = {"scale": spacing, "units": ["mm"] * 3} if form["from_file"] else {}
    stored = Geometry(spacing=spacing, origin=(0, 0, 0), direction=tuple(np.eye(3).ravel())).model_dump()
    about = {"metadata": {STORED: stored}} if form["from_file"] else {}
    if series and place:
        place = {"scale": (1.0, *spacing), "units": ["pixel", *["mm"] * 3]}
    order = (1, 0) if form["swapped"] else (0, 1)
    if form["one_layer"]:
        space = {"scale": (1.0, *place["scale"]), "units": ["pixel", *place["units"]]} if place else {}
        layers = (Image(np.stack([arrays[c] for c in order]), name="both", **space, **about), None)
    else:
        layers = tuple(Image(arrays[c], name=f"layer {c}", **place, **about) for c in order)
    typed = form["typed"] or ("" if place else "1 1 1")
    region = form["region"]
    choices = Choices(
        model=load_model(folder),
        layers=layers,
        axes=("C" if form["one_layer"] else "") + ("T" if series else "") + "ZYX",
        spacing_text=typed,
        settings=PredictSettings(
            folds=form["folds"], mirroring=form["mirroring"], step=form["step"], device="cpu", backend="torch"
        ),
        region=None if region is None else (region[:2], region[2:], (0, SHAPE[2])),
        times=(form["time"],) if series else None,
        output=form["output"],
        accepted=(0.05, 0.05, 0.05) if typed.startswith("0.05") else None,
    )
    request = resolve(choices)
    result = ResultLayers(request)
    (prediction,) = drain(
        predict_series(request.model, result.targets(), request.settings, focus=(3.0, None, None), roi=request.region),
        None,
    )
    labels = result.canvas[form["time"]] if series else result.canvas
    kept = list(form["kept"])
    take_out(labels, kept)
    recipe = {**prediction.recipe, **request.asked, "corrected": False}
    if kept:
        recipe |= {"postprocessing": Cleaning.of(kept).arguments(), "postprocessing_file": None}
    files = [arrays[c][form["time"]] if series else arrays[c] for c in order]
    return recipe, labels, files, spacing if form["from_file"] else (1.0, 1.0, 1.0)


def _fresh(words, cwd):
    source = str(Path(__file__).parents[3] / "src")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, *words], check=True, cwd=cwd, env=environment, capture_output=True)


def _by_command(text, work, *, fresh):
    lines = [shlex.split(line) for line in text.splitlines() if not line.startswith("#")]
    for line in lines:
        assert line[0] == "napari-nnunet"
        if fresh:
            _fresh(["-m", "napari_nnunet", *line[1:]], work)
        else:
            assert main(line[1:]) == 0
    out = Path(lines[-1][lines[-1].index("-o") + 1])
    return read_labels(out / "CASE.nii.gz")[0]


def _by_python(text, work, *, fresh):
    for c in (0, 1):
        text = text.replace(f'"CASE_{c:04d}.nii.gz"', repr(str(work / "in" / f"CASE_{c:04d}.nii.gz")))
    if fresh:
        _fresh(["-c", text + f"import numpy; numpy.save({str(work / 'labels.npy')!r}, labels)"], work)
        return np.load(work / "labels.npy")
    names: dict = {}
    exec(text, names)
    return names["labels"]


def _agrees(folder, form, *, fresh):
    work = Path(tempfile.mkdtemp())
    try:
        recipe, labels, files, spacing = _segment(folder, form)
        (work / "in").mkdir()
        for c, array in enumerate(files):
            write_nifti(work / "in" / f"CASE_{c:04d}.nii.gz", array.astype(np.float32), spacing=spacing)
        command = as_command(recipe, source=str(work / "in"), target=str(work / "out"))
        np.testing.assert_array_equal(_by_command(command, work, fresh=fresh), labels)
        np.testing.assert_array_equal(_by_python(as_python(recipe), work, fresh=fresh), labels)
    finally:
        shutil.rmtree(work)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(form=forms)
def test_command_and_python_give_the_labels_of_the_dock(two_channels, form):
    _agrees(two_channels, form, fresh=False)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(form=forms)
def test_they_do_so_in_fresh_processes(two_channels, form):
    _agrees(two_channels, form, fresh=True)


def test_the_words_name_what_the_form_said(two_channels):
    form = {
        "from_file": False, "typed": "0.05 0.05 0.05", "region": (0, 6, 2, 16), "time": 1, "swapped": True,
        "one_layer": False, "folds": (0,), "mirroring": False, "step": 0.5, "output": "Labels", "kept": ([1, 2],),
    }  # fmt: skip
    recipe = _segment(two_channels, form)[0] | {"corrected": True}
    command, python, methods = as_command(recipe), as_python(recipe), as_methods(recipe)
    assert "# INPUT_FOLDER: CASE_0000.nii.gz is T1 ('layer 1'), CASE_0001.nii.gz is T2 ('layer 0')" in command
    assert "--region 0 6 2 16 0 16 --spacing 0.05 0.05 0.05 --any_spacing" in command
    assert command.splitlines()[-1].endswith("--keep_largest 1+2")
    for text in (command, python):
        assert "these were segmented, counted from 0: 1" in text
        assert "corrected by hand" in text
    assert "region=((0, 6), (2, 16), (0, 16))" in python
    assert "Only a region of the image was segmented" in methods
    assert "Voxels were taken as 0.05 x 0.05 x 0.05 mm" in methods
    assert "corrected by hand" in methods
