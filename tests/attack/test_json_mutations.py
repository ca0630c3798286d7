"""Every JSON file with any value replaced, left out, made huge or damaged is read or refused in a sentence, at once.

The quick part takes a few mutations; ``tox run -e attack`` as many of every kind as ``NAPARI_NNUNET_ATTACK`` says.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from side_files import EPOCH, SIDE_FILES
from tally import SEED, TRIES, numbers

import nasty
from helpers import REGIONS, STATISTICS, TINY_PLANS, Recipe, make_dataset, make_model
from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Note, from_json, to_json
from napari_nnunet.formats import speed
from napari_nnunet.formats.claim import Runner, runner_of
from napari_nnunet.formats.dataset.case_trash import cases_in_trash, doubts
from napari_nnunet.formats.dataset.raw_writer import drop_case
from napari_nnunet.formats.dataset.relabel import remap_dataset
from napari_nnunet.formats.images.files import read_header
from napari_nnunet.formats.images.label_note import LabelNote
from napari_nnunet.formats.json_lines import read_lines
from napari_nnunet.formats.model.card import ModelCard
from napari_nnunet.formats.model.eight_bit import EightBit
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.model.known_models import known_models
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.formats.preprocessed.plans import plan_files
from napari_nnunet.formats.results.inference_information import INFORMATION, read_best
from napari_nnunet.formats.results.postprocessing import read_cleaning
from napari_nnunet.formats.results.recipe import STYLES, read_recipe
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.arithmetic import known
from napari_nnunet.jobs.choosing.calibrate import known_temperature
from napari_nnunet.jobs.dataset.splits import read_splits
from napari_nnunet.jobs.objects.find import heads_of, read_rules
from napari_nnunet.processes.follow import Follower
from napari_nnunet.processes.launch import request_of
from napari_nnunet.processes.queue import queue_folder, tickets
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.fingerprint import Fingerprint
from napari_nnunet.schema.json_text import read_json
from napari_nnunet.schema.objects import KEY, ObjectScheme
from napari_nnunet.schema.plans import Plans
from napari_nnunet.widgets.training.words import note_line, status_line

QUICK = 60  # of every kind
LONGEST = 5.0  # seconds for one file; on a busy computer
VALUES = (
    *nasty.VALUES, 10**9, -(10**9), 1e308, -1e308, 5e-324, "9" * 5_000, "x" * 100_000, "\u001b[31m", "\n", [0] * 1_000,
    [[0, 1]] * 50, {"a": {"b": {"c": []}}}, [0, 0, 0], [2, 1, 0], [True], "1", "-1", "nan", False,
)  # fmt: skip
TOKENS = ("9" * 6_000, "-" + "9" * 400, "[" * 100_000, "[" * 300 + "]" * 300, '"\\ud800"', "1e999", "NaN", "nul", "")

MEMBER = {
    "model": "m", "folder": "f", "trainer": "t", "plans": "p", "configuration": "c", "folds": ["0"],
    "checkpoint": "x.pth", "sha256": {"fold_0": "ab"}, "step": 0.5, "mirror_axes": [0], "backend": "b",
    "precision": "float32", "versions": {"a": "1"},
}  # fmt: skip
MODEL = {"trainer": "nnUNetTrainer", "plans_identifier": "nnUNetPlans", "configuration": "2d"}
KINDS = {
    "plans": TINY_PLANS,
    "dataset": REGIONS,
    "fingerprint": {
        "foreground_intensity_properties_per_channel": {"0": {**STATISTICS, "max": 3, "min": 0, "median": 1}},
        "median_relative_size_after_cropping": 1.0,
        "shapes_after_crop": [[12, 24, 22]],
        "spacings": [[1.0, 1.0, 1.0]],
    },
    "summary": {
        "foreground_mean": {"Dice": 0.5},
        "mean": {"1": {"Dice": 0.5}},
        "metric_per_case": [
            {"prediction_file": "a.nii.gz", "reference_file": "b.nii.gz", "metrics": {"1": {"Dice": 0.5}}}
        ],
    },
    "recipe": MEMBER,
    "postprocessing": {
        "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
        "postprocessing_kwargs": [{"labels_or_regions": [1, 2], "background_label": 0}],
    },
    "information": {
        "folds": [0, "all"],
        "dataset_name_or_id": "Dataset001_Tiny",
        "all_results": {"a": 0.5},
        "best_model_or_ensemble": {
            "result_on_crossval_pre_pp": 0.5,
            "result_on_crossval_post_pp": 0.6,
            "postprocessing_file": "/x/Dataset001_Tiny/p.pkl",
            "some_plans_file": "/x/Dataset001_Tiny/plans.json",
            "selected_model_or_models": [MODEL],
        },
    },
    "splits": [{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}],
    "card": {"dataset": "d", "channels": ["CT"], "classes": [{"name": "a", "values": [1], "colour": "#ff0000"}]},
    "eight bit": {
        "version": 1,
        "folds": {"0": {"checkpoint": "c.pth", "weights": "a" * 64, "ranges": {"conv": [-1.0, 2.0]}}},
        "measured": {
            "computer": "c",
            "arithmetic": "a",
            "cases": 2,
            "dice": 0.5,
            "seconds": 2.0,
            "dice_eight_bit": 0.5,
            "seconds_eight_bit": 1.0,
        },
    },
    "rules": {
        "rules": {"cell": {"seed": 0.5, "inside": 0.4, "smallest": 3, "smallest_seed": 1}},
        "score": 0.5,
        "cases": 3,
    },
    "objects": {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "core": 1, "border": 2},
        "numTraining": 3,
        "file_ending": ".tif",
        KEY: {
            "kinds": {"cell": [1, 2]},
            "width": 2.0,
            "unit": 1.0,
            "scores": {"2.0": 0.9},
            "values": {"1": "cell"},
            "classes": {},
            "ignore": None,
        },
    },
    "aside": {"mapping": {"0": 0, "5": 1}, "labels": {"background": 0, "a": 1}, "trash": "labels of all cases 2026"},
    "spacing": {"spacing": [1.0, 2.0, 3.0]},
    "note": {
        "axes": "ZYX",
        "shape": [2, 3, 4],
        "geometry": {"spacing": [1.0, 1.0, 1.0]},
        "names": {"1": "a"},
        "colours": {"1": "#ff0000"},
        "time_step": 2.0,
        "time_unit": "s",
    },
    "notebook": {"key": "torch", "seconds": 2.0},
    "measured": {
        "key": "predict | here",
        "seconds": [{"backend": "torch", "precision": "float32", "seconds": 1.0, "deviation": 0.0}],
    },
    "known": {"models": ["/a/b"]},
    "presets": {"presets": {"fast": {"dice": 0.5}}},
    "calibration": {"temperature": 1.5},
    "journal": {"case": "a", "made_from": "b"},
    "settings": {"settings": {"epochs": 3, "workers": 0, "trainer": "nnUNetTrainer"}},
    "trashed": {"background": 0, "a": [1, 2]},
    "control": {"stop": False, "finish_in": 3},
    "running": {"pid": 4_000_000, "host": "h", "created": 1.5, "command": ["a"], "started": 1.0, "token": "t"},
    "ticket": {"pid": 4_000_000, "host": "h", "created": 1.5, "command": ["a"], "folders": ["a/fold_0"]},
    "event": json.loads(to_json(Note(text="said"))),
    "epoch": EPOCH,
}


def read(kind, path):
    """Read a file as whoever needs it does, and use what comes."""
    if kind in SIDE_FILES:
        return SIDE_FILES[kind][1](path)
    if kind == "plans":
        plan_files(path.parent)
        plans = Plans.read(path)
        return [plans.configuration(name).architecture.divisor for name in plans.configurations]
    if kind == "dataset":
        scheme = DatasetInfo.read(path).labels
        return scheme.names, scheme.heads, scheme.head_names, scheme.dtype
    if kind == "fingerprint":
        return json.dumps(Fingerprint.read(path).to_json())
    if kind == "summary":
        found = Summary.read(path, ending=".nii.gz")
        return found.dice, found.class_dice, found.worst_first
    if kind == "recipe":
        return [say(read_recipe(path)) for say in STYLES.values()]
    if kind == "information":
        (path.parent / INFORMATION).write_bytes(path.read_bytes())
        return read_best(path.parent)
    if kind == "card":
        return ModelCard.parse(read_json(path, NnunetError), where=str(path))
    if kind == "eight bit":
        found = EightBit.read(path)
        return found.advice, found.measured and (str(found.measured), found.measured.is_worth_it)
    if kind == "objects":
        info = DatasetInfo.read(path)
        scheme = ObjectScheme.of(info)
        return scheme and heads_of(info, scheme)
    if kind == "aside":
        return read_aside(path)
    if kind == "spacing":
        (path.parent / "a.json").write_bytes(path.read_bytes())
        tifffile.imwrite(path.parent / "a.tif", np.zeros((5, 6, 7), np.uint8))
        return read_header(path.parent / "a.tif")
    return {"postprocessing": read_cleaning, "rules": read_rules, "splits": read_splits, **MESSAGES}[kind](path)


def read_aside(path):
    """Finish a change of label values that was interrupted, as whoever changes them next does."""
    dataset = path.parent / "nnUNet_raw" / "Dataset003_Aside"
    for part in ("labelsTr", "imagesTr", ".renumbered"):
        (dataset / part).mkdir(parents=True, exist_ok=True)
    (dataset / "dataset.json").write_text(json.dumps({**KINDS["dataset"], "labels": {"background": 0, "a": 5}}))
    (dataset / ".renumbered" / "complete.json").write_bytes(path.read_bytes())
    try:
        remap_dataset(dataset)
    finally:
        assert {p.name for p in path.parent.parent.iterdir()} == {"Dataset001_Tiny"}
        assert all(p.name in ("Dataset003_Aside",) for p in dataset.parent.iterdir())


def read_note(path):
    LabelNote.of_text(path.read_bytes().decode("utf-8", "surrogateescape"))


def in_cache(path, name):
    """Put a file where the notebooks of this computer lie."""
    place = Path(os.environ["XDG_CACHE_HOME"]) / "napari-nnunet" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(path.read_bytes())


def read_notebook(path):
    in_cache(path, "speed.jsonl")
    seconds = speed.seconds_per_run("torch")
    assert seconds is None or 0 < seconds < 1e7
    known()
    speed.remember("torch", 1.0)
    assert speed.seconds_per_run("torch") == 1.0


def read_known(path):
    for place in (Path(os.environ["XDG_CACHE_HOME"]), Path(os.environ["XDG_DATA_HOME"])):
        for name in ("models.json", "known_models.json"):
            (place / "napari-nnunet").mkdir(parents=True, exist_ok=True)
            (place / "napari-nnunet" / name).write_bytes(path.read_bytes())
    known_models(Workspace.at(path.parent))


def read_beside_a_model(path):
    model = path.parent / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    if not model.is_dir():
        made = make_model(path.parent / "made", Recipe()).folder
        made.rename(model)
    for name in ("inference_presets.json", "calibration.json"):
        (model / name).write_bytes(path.read_bytes())
    (model / "fold_0" / "debug.json").write_bytes(path.read_bytes())
    found = load_model(model)
    assert all(isinstance(dice, float) for dice in found.preset_dice.values())
    temperature = known_temperature([model])
    assert temperature is None or 0 < temperature < math.inf
    request_of(FoldFolder(model / "fold_0"), Workspace.at(path.parent))


def read_journal(path):
    Journal(path).read()


def read_trashed(path):
    dataset = make_dataset(path.parent, cases=2) if not (path.parent / "nnUNet_raw").is_dir() else None
    dataset = dataset or next((path.parent / "nnUNet_raw").iterdir())
    if not cases_in_trash(dataset):
        drop_case(dataset, "c0")
    (entry,) = cases_in_trash(dataset)
    (entry.path / "classes.json").write_bytes(path.read_bytes())
    doubts(dataset, entry)


def read_control(path):
    folder = FoldFolder(path.parent / "fold_0")
    folder.path.mkdir(exist_ok=True)
    (folder.path / "control.json").write_bytes(path.read_bytes())
    wishes = folder.wishes()
    assert isinstance(wishes.stop, bool) and wishes.finish_in >= 0


def read_running(path):
    assert runner_of(path) is None or isinstance(runner_of(path), Runner)


def read_ticket(path):
    folder = queue_folder(path.parent)
    folder.mkdir(exist_ok=True)
    (folder / "1.json").write_bytes(path.read_bytes())
    tickets(path.parent)


def read_event(path):
    list(read_lines(path))
    fold = path.parent / "nnUNet_results" / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0"
    fold.mkdir(parents=True, exist_ok=True)
    (fold / "events.jsonl").write_bytes(path.read_bytes() + b"\n")
    (training,) = Follower(Workspace.at(path.parent)).look()
    assert status_line(training) and len(note_line(training)) < 1 << 20


#: What programs leave for each other: what is not understood is ignored, and never an error.
MESSAGES = {"control": read_control, "running": read_running, "ticket": read_ticket, "event": read_event, "epoch": read_event,
            "note": read_note, "notebook": read_notebook, "measured": read_notebook, "known": read_known,
            "presets": read_beside_a_model, "calibration": read_beside_a_model, "settings": read_beside_a_model,
            "journal": read_journal, "trashed": read_trashed}  # fmt: skip


def mutations(content, chance):
    """Give JSON texts, each with one thing wrong, for ever: a value, a key, a token, some bytes."""
    places = list(nasty.places(content))
    while True:
        place = chance.choice(places)
        how = chance.randrange(10)
        if how < 6:
            text = json.dumps(nasty.spoiled(content, place, copy.deepcopy(chance.choice(VALUES))))
        elif how == 6:
            text = json.dumps(nasty.spoiled(content, place))
        elif how == 7:
            text = json.dumps(nasty.spoiled(content, place, "@")).replace('"@"', chance.choice(TOKENS))
        else:
            text = json.dumps(content)
        data = text.encode(chance.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32")))
        if how > 7:
            begin = chance.randrange(len(data))
            data = data[:begin] + chance.choice((b"", chance.randbytes(3))) + data[begin + chance.randrange(4) :]
        yield data


def outcome(kind, path):
    """Read a file; return what came of it."""
    begun, what = time.process_time(), "harmless"
    try:
        read(kind, path)
    except NnunetError as error:
        what = "refused"
        if kind in MESSAGES or len(error.message) > 3_000 or "Traceback" in error.message:
            what = "traceback"
    except BaseException:
        what = "traceback"
    return "hang" if time.process_time() - begun > LONGEST else what


@pytest.mark.parametrize("kind", [*KINDS, *SIDE_FILES])
@pytest.mark.usefixtures("known_arithmetic")
@pytest.mark.filterwarnings("ignore::UserWarning:zarr")  # of files it does not know
def test_a_file_with_anything_wrong_is_read_or_refused_in_a_sentence(tmp_path, monkeypatch, figures, kind):
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "Dataset001_Tiny" / "home"))
    folder = tmp_path / "Dataset001_Tiny"
    folder.mkdir()
    path = folder / f"{kind}.json"
    whole = SIDE_FILES[kind][0]() if kind in SIDE_FILES else KINDS[kind]
    path.write_text(json.dumps(whole))
    read(kind, path)
    found = []
    changed = mutations(whole, random.Random(f"{SEED} {kind}"))
    for number, data in zip(numbers("JSON", len(KINDS) + len(SIDE_FILES), TRIES, QUICK), changed, strict=False):
        path.write_bytes(data)
        found.append(outcome(kind, path))
        figures.note("JSON", found[-1], f"{kind}, number {number}: {data[:300]!r}")
    figures.require_none()
    assert found.count("refused") > len(found) / 8 or kind in MESSAGES


def test_a_line_that_no_program_wrote_takes_no_time(tmp_path):
    path = tmp_path / "events.jsonl"
    line = to_json(Note(text="said")).encode() + b"\n"
    path.write_bytes(line + b'{"kind": "note", "text": "' + b"x" * (64 << 20) + b'"}\n' + line)
    begun = time.process_time()
    assert len(list(read_lines(path))) == 2
    fold = tmp_path / "nnUNet_results" / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0"
    fold.mkdir(parents=True)
    path.rename(fold / "events.jsonl")
    (training,) = Follower(Workspace.at(tmp_path)).look()
    assert training.note == "said"
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("line", ["[" * 100_000, '{"kind": ' + "9" * 6_000 + "}", "{", "3"])
def test_a_line_that_is_no_event_is_a_value_error(line):
    with pytest.raises(ValueError, match=r".*"):
        from_json(line)
