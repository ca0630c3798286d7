"""Flags are made of requests: nnU-Net's are all there, words and requests are each other's inverse."""

from __future__ import annotations

import argparse
import inspect
import json
from pathlib import Path
from typing import Annotated

import pytest
from flags_today import PROMISED, differences, flags_of_all

from napari_nnunet.cli.flags import add_flags, read
from napari_nnunet.cli.main import main
from napari_nnunet.cli.reference import MARK, reference, table
from napari_nnunet.cli.verbs import VERBS
from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.requests.choosing import (
    ApplyPostprocessingRequest,
    EnsembleRequest,
    EvaluateSimpleRequest,
)
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest, VerifyRequest
from napari_nnunet.schema.requests.keywords import keywords
from napari_nnunet.schema.requests.option import option
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest
from napari_nnunet.schema.requests.prediction import PredictFromModelfolderRequest, PredictRequest
from napari_nnunet.schema.requests.sharing import ExportRequest
from napari_nnunet.schema.requests.training import TrainAllRequest, TrainCommand, TrainSettings
from napari_nnunet.schema.requests.words import words

FLAGS = json.loads(PROMISED.read_text(encoding="utf-8"))


def parse(kind, *typed):
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    add_flags(parser, kind)
    return read(kind, parser.parse_args([str(word) for word in typed]))


def test_every_flag_is_taken_as_it_was_promised_and_means_the_same_where_it_is_left_out():
    """A line of the message for each; where it is meant, ``python tests/cli/flags_today.py`` writes the new promise."""
    changed = differences(FLAGS, flags_of_all())
    assert not changed, "\n" + "\n".join(changed)


def test_a_changed_default_a_lost_flag_and_a_new_verb_are_told_in_a_line_each():
    today = {**FLAGS, "predict": {**FLAGS["predict"], "-step_size": "one word; default 0.7"}, "new": {"-x": "required"}}
    del today["predict"]["--c"]
    assert differences(FLAGS, today) == [
        "new -x: was 'not there', is 'required'",
        "predict --c: was 'no word; default False', is 'not there'",
        "predict -step_size: was 'one word; default 0.5', is 'one word; default 0.7'",
    ]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_verb_is_explained_and_has_its_function(verb):
    assert callable(verb.run)
    assert verb.description.endswith(".")
    for _, field, _flag in verb.kind.flags():
        assert field.title and field.description


OTHER = {
    "trainer": "nnUNetTrainer_5epochs", "epochs": 3, "iterations": 4, "validation_iterations": 2, "time_budget": 90.5,
    "early_stop": 7, "foreground_jitter": 0.25, "seed": 3, "device": "cpu", "precision": "bfloat16", "compile": True,
    "threads": 2, "workers": 0, "augment_on": "device", "tensorboard": True, "track": ("mlflow", "wandb"), "checkpoints": False,
    "probabilities": True, "class_weights": {"lesion": 2.5, "left part": 4.0}, "scribbles": True,
}  # fmt: skip


def test_a_detached_training_is_told_every_setting():
    assert set(OTHER) == set(TrainSettings.model_fields)
    assert all(getattr(TrainSettings(), name) != value for name, value in OTHER.items())
    where = {"dataset": "Dataset004_X", "configuration": "2d", "plans": "mine", "finish_in": 2, "resume": True}
    requests = [
        TrainCommand(**where, fold=fold, wait=True, pretrained=Path("a b.pth"), **OTHER) for fold in (0, 3, "all")
    ]
    assert parse(TrainCommand, *words(requests)) == requests


def test_what_is_not_typed_is_told_from_a_default():
    request = parse(TrainCommand, "4", "2d", "0", "--seed", "0")[0]
    assert request.model_fields_set == {"dataset", "configuration", "fold", "seed"}


@pytest.mark.parametrize(
    ("kind", "typed", "field", "wanted"),
    [
        (PredictFromModelfolderRequest, "-m M -o out -i c0 -i c1 c2", "source", (Path("c0"), Path("c1"), Path("c2"))),
        (PredictRequest, "-d 4 -c 2d -i a -o b -f 0 -f 1", "folds", (0, 1)),
        (PredictRequest, "-d 4 -c 2d -i a -o b -f all", "folds", ("all",)),
        (PlanAndPreprocessRequest, "-d 4 -np 4 8 -c 2d -c 3d_lowres", "configurations", ("2d", "3d_lowres")),
        (ImportFoldersRequest, "-i a -m b --skip c0 --skip c1", "skip", ("c0", "c1")),
        (ImportFoldersRequest, "-i a -m b --classes 1=a --classes 2=b", "class_names", {1: "a", 2: "b"}),
        (ImportFoldersRequest, "-i a -m b --map=-2=ball --map=-1=ignore", "mapping", {"-2": "ball", "-1": "ignore"}),
        (EvaluateSimpleRequest, "a b -l 1 -l 2", "labels", (1, 2)),
        (ApplyPostprocessingRequest, "-i a -o b --keep_largest 1 --keep_largest 2", "keep_largest", ("1", "2")),
        (TrainAllRequest, "4 -c 2d --folds 0 --configurations 3d_lowres -f 1", "folds", (0, 1)),
        (TrainAllRequest, "4 -c 2d --configurations 3d_lowres", "configurations", ("2d", "3d_lowres")),
    ],
)
def test_values_of_a_flag_that_is_given_twice_are_all_taken(kind, typed, field, wanted):
    (request,) = parse(kind, *typed.split())
    assert getattr(request, field) == wanted


def test_datasets_of_a_flag_that_is_given_twice_are_all_taken():
    assert [request.dataset for request in parse(VerifyRequest, "-d", "4", "-d", "5", "6")] == ["4", "5", "6"]


@pytest.mark.parametrize(
    ("kind", "typed", "field", "last", "said"),
    [
        (
            PredictRequest,
            "-d 4 -c 2d -i a -o b -step_size 0.5 -step_size 0.25",
            "step",
            0.25,
            "-step_size is given twice, with 0.5 and with 0.25; the last counts.",
        ),
        (PredictRequest, "-d 4 -c 2d -i a -o b -o c", "target", Path("c"), "-o is given twice, with b and with c;"),
        (
            PredictRequest,
            "-d 4 -c 2d -i a -o b --spacing 4 1 --spacing 2 1",
            "spacing",
            (2.0, 1.0),
            "--spacing is given twice, with 4.0 1.0 and with 2.0 1.0;",
        ),
        (
            PlanAndPreprocessRequest,
            "-d 4 -np 4 8 -np 2",
            "workers",
            2,
            "-np is given twice, with 4 8 and with 2; the last counts.",
        ),
        (
            TrainCommand,
            "4 2d 0 --continue_from a --continue-from b",
            "continue_from",
            "b",
            "is given twice, with a and with b; the last counts.",
        ),
    ],
)
def test_of_a_flag_of_one_value_the_last_counts_and_it_is_said(kind, typed, field, last, said, capsys):
    """A script adds its caller's flags behind its own."""
    (request,) = parse(kind, *typed.split())
    assert str(getattr(request, field)) == str(last)
    assert said in capsys.readouterr().err


def test_the_same_value_may_be_given_twice(capsys):
    (request,) = parse(
        PredictRequest,
        *["-d", "4", "-c", "2d", "-i", "a", "-o", "b", "-o", "./b", "-step_size", "0.5", "-step_size", ".5"],
    )
    assert request.target == Path("b") and request.step == 0.5
    assert not capsys.readouterr().err


ASKED = {
    TrainCommand: {"dataset": "4", "configuration": "2d", "fold": 0},
    PlanAndPreprocessRequest: {"dataset": "4"},
    PredictRequest: {"dataset": "4", "configuration": "2d", "source": Path("in"), "target": Path("out")},
    EnsembleRequest: {"sources": (Path("a"), Path("b")), "target": Path("out")},
    ExportRequest: {"dataset": "4", "target": Path("a.zip")},
    ImportFoldersRequest: {"name": "X", "images": Path("in"), "masks": Path("out"), "channel_names": ("CT",)},
}


@pytest.mark.parametrize("kind", ASKED, ids=lambda kind: kind.__name__)
def test_a_field_is_a_line_in_one_place(kind):
    """In verb, page of flags, words of a detached process, and Python; the rows of docks have a test of their own."""

    class More(kind):
        """Do more."""

        sharpness: Annotated[float, option("Sharpness", "--sharpness S", "How sharp.", otherwise="blunt")] = 0.5

    @keywords(More)
    def python(**changes):
        """Do more.

            Parameters
            ----------
        **changes
        """

    parser = argparse.ArgumentParser()
    add_flags(parser, More)
    assert "--sharpness S" in parser.format_help() and "how sharp (default: blunt)" in parser.format_help()
    asked = More.of(**ASKED[kind], sharpness=2.0)
    assert words([asked])[-2:] == ["--sharpness", "2.0"]
    assert parse(More, *words([asked])) == [asked]
    assert "| `--sharpness S` | how sharp | blunt |" in table(More)
    assert inspect.signature(python).parameters["sharpness"].default == 0.5
    assert "    sharpness : float, optional\n        How sharp.\n" in python.__doc__


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["4", "2d", "first"], "FOLD: 'first' is not a fold"),
        (["4", "2d", "0", "--time-budget", "soon"], "'soon' is not a duration"),
        (["4", "2d", "0", "--foreground_jitter", "2"], r"'foreground_jitter' \(--foreground_jitter\) cannot be 2.0"),
    ],
)
def test_a_wrong_value_is_named_with_its_flag(typed, said):
    with pytest.raises(SettingsError, match=said):
        parse(TrainCommand, *typed)


@pytest.mark.parametrize("number", ["inf", "nan", "1e400"])
def test_numbers_are_finite(number):
    with pytest.raises(SettingsError, match=r"'gpu_memory_gb' \(-gpu_memory_target\) cannot be (inf|nan)"):
        parse(PlanAndPreprocessRequest, "-d", "4", "-gpu_memory_target", number)


def test_the_page_of_flags_is_as_the_requests_say():
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page.partition(MARK)[2].strip() == reference().strip(), MARK


def test_channels_are_not_resampled_and_taken_as_they_lie_at_once(tmp_path, capsys):
    words = ["preprocess", "-d", "1", "--resample_channels", "--ignore_geometry", "--workspace", str(tmp_path)]
    assert main(words) == 1
    assert "Give either --ignore_geometry or --resample_channels." in capsys.readouterr().err


@pytest.mark.parametrize("words", [["look", ""], ["look", " "], ["predict", "-i", "", "-o", "out", "-d", "4", "-c", "2d"]])  # fmt: skip
def test_a_path_of_no_letters_is_not_the_folder_that_one_is_in(words, capsys):
    """A variable of the shell that is not set leaves one: everything here would be looked at, or written to."""
    with pytest.raises(SystemExit):
        main(words)
    assert "is an empty path. Is a variable of the shell not set?" in capsys.readouterr().err
