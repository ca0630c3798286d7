"""What comes after training: join, compare, choose, postprocess, segment with the best."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nnunet.cli._checked import checked
from napari_nnunet.cli._plan import add_output, run_shown
from napari_nnunet.cli._predict import Verbs
from napari_nnunet.errors import DatasetError
from napari_nnunet.schema.names import parse_fold
from napari_nnunet.schema.plans import TRAINABLE

if TYPE_CHECKING:
    from napari_nnunet.jobs.choosing.evaluate import Rules
    from napari_nnunet.schema.dataset import DatasetInfo


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    _add_ensemble(verbs)
    _add_evaluation(verbs)
    _add_choosing(verbs)
    _add_postprocessing(verbs)


def _verb(verbs: Verbs, name: str, run: Any, short: str, long: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=short, description=long, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-np", type=int, default=0, metavar="N", help="processes, at most (default: all cores)")


def _add_ensemble(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "ensemble",
        _ensemble,
        "join the predictions of several models",
        "Join the probabilities of several models (folders written with --save_probabilities): their mean decides.",
    )
    add = parser.add_argument
    add("-i", nargs="+", required=True, type=Path, metavar="FOLDER", help="folders with CASE.npz and CASE.pkl")
    add("-o", required=True, type=Path, metavar="OUTPUT", help="folder for the segmentations")
    add("--save_npz", action="store_true", help="also write the mean probabilities")
    add("--weights", nargs="+", type=float, metavar="W", help="one per folder (default: equal)")
    add("--hard", action="store_true", help="the majority of the labels decides, not the mean of the probabilities")
    add("--uncertainty", action="store_true", help="also write maps of entropy and disagreement (0 to 1)")
    add("--temperature", type=float, default=1.0, metavar="T", help="for the entropy, as 'calibrate' finds it")
    _add_workers(parser)
    add_output(parser)


def _add_evaluation(verbs: Verbs) -> None:
    folder = _verb(
        verbs,
        "evaluate_folder",
        _evaluate_folder,
        "measure segmentations against references",
        "Compare a folder of segmentations with a folder of references; writes nnU-Net's summary.json.",
    )
    _add_pair(folder)
    folder.add_argument("-djfile", required=True, type=Path, metavar="FILE", help="dataset.json")
    folder.add_argument("-pfile", type=Path, metavar="FILE", help="plans.json, which names the reader")
    simple = _verb(
        verbs,
        "evaluate_simple",
        _evaluate_simple,
        "the same without dataset.json",
        "Compare a folder of segmentations with a folder of references by label values.",
    )
    _add_pair(simple)
    simple.add_argument("-l", nargs="+", type=int, required=True, metavar="LABEL", help="labels to measure")
    simple.add_argument("-il", type=int, metavar="LABEL", help="value of voxels that do not count")
    parser = _verb(
        verbs,
        "compare",
        _compare,
        "compare two folders of segmentations, worst cases first",
        "Compare two folders of segmentations (two models, two readers) by the Dice of each class; writes nothing.",
    )
    parser.add_argument("first", type=Path, help="folder")
    parser.add_argument("second", type=Path, help="folder with files of the same names")
    parser.add_argument("-djfile", type=Path, metavar="FILE", help="dataset.json (default: the one in a folder)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table")
    _add_workers(parser)
    add_output(parser)


def _add_pair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gt_folder", type=Path, help="folder with the references")
    parser.add_argument("pred_folder", type=Path, help="folder with the segmentations")
    parser.add_argument("-o", type=Path, metavar="FILE", help="(default: summary.json in pred_folder)")
    parser.add_argument("--chill", action="store_true", help="references without a segmentation are left out")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write one line per case and label, worst first")
    parser.add_argument(
        "--surface",
        nargs="?",
        type=float,
        const=1.0,
        metavar="MM",
        help="also HD95 and the normalised surface Dice with this tolerance (default 1 mm); needs MONAI",
    )
    _add_workers(parser)
    add_output(parser)


def _add_model_names(parser: argparse.ArgumentParser, *, several: bool) -> None:
    more: dict[str, Any] = {"nargs": "+"} if several else {}
    add = parser.add_argument
    add("-tr", default=["nnUNetTrainer"] if several else "nnUNetTrainer", metavar="TRAINER", help="trainer", **more)
    add("-p", default=["nnUNetPlans"] if several else "nnUNetPlans", metavar="PLANS", help="plans", **more)
    add(
        "-f",
        nargs="+",
        metavar="FOLD",
        help="folds (default: 0 1 2 3 4, as far as they are trained)",
    )


def _add_choosing(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "accumulate_crossval_results",
        _accumulate,
        "put the validation cases of all folds together and measure them",
        "Copy the validation cases of all folds of a model into one folder and measure them.",
    )
    parser.add_argument("dataset", help="number or name")
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="2d, 3d_fullres, ...")
    parser.add_argument("-o", type=Path, metavar="DIR", help="empty or new (default: crossval_results_folds_... )")
    _add_model_names(parser, several=False)
    _add_workers(parser)
    add_output(parser)
    parser = _verb(
        verbs,
        "calibrate",
        _calibrate,
        "find out how sure a model, or an ensemble, may be",
        "Fit a temperature to the probabilities of the validation cases, for maps of uncertainty.",
    )
    parser.add_argument("dataset", help="number or name")
    parser.add_argument("-c", nargs="+", required=True, metavar="CONFIGURATION", help="one, or those of an ensemble")
    _add_model_names(parser, several=False)
    add_output(parser)
    parser = _verb(
        verbs,
        "find_best_configuration",
        _find_best,
        "compare all trained models and their ensembles, choose the best",
        "Compare all trained models of a dataset and all pairs of them by cross-validation, determine the "
        "postprocessing of the best, and write how to use it.",
    )
    parser.add_argument("dataset_name_or_id", help="number or name")
    parser.add_argument(
        "-c", nargs="+", default=list(TRAINABLE), metavar="CONFIGURATION", help="(default: %(default)s)"
    )
    _add_model_names(parser, several=True)
    parser.add_argument("--disable_ensembling", action="store_true", help="single models only")
    parser.add_argument("--triples", action="store_true", help="also ensembles of three")
    parser.add_argument("--no_overwrite", action="store_true", help="use what was put together before")
    _add_workers(parser)
    add_output(parser)
    _add_best(verbs)


def _add_best(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "predict_best",
        _predict_best,
        "segment a folder of images with what find_best_configuration chose",
        "Carry out the whole recipe of the best model or ensemble: all folds and stages, joining, postprocessing.",
    )
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="number or name")
    add("-i", required=True, type=Path, metavar="INPUT", help="folder with CASE_0000.ext, ...")
    add("-o", required=True, type=Path, metavar="OUTPUT", help="folder for the final segmentations")
    add("--disable_tta", action="store_true", help="no mirroring: up to 8 times faster, a little less accurate")
    add("-step_size", type=float, default=0.5, metavar="S", help="tile step (default: %(default)s)")
    add("--save_probabilities", action="store_true", help="also write the mean probabilities")
    add("--uncertainty", action="store_true", help="also write maps of entropy and disagreement (0 to 1)")
    add("--continue_prediction", "--c", action="store_true", help="skip cases whose complete output is there")
    add("-device", default="auto", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    add_output(parser)
    parser = _verb(
        verbs,
        "recipe",
        _recipe,
        "say how segmentations were made: as a command, as Python, as a methods paragraph",
        "Print how the segmentations of a folder were made.",
    )
    parser.add_argument("folder", type=Path, help="folder of segmentations (or its recipe.json)")
    parser.add_argument("--as", dest="style", choices=["command", "python", "methods"], default="command")


def _add_postprocessing(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "determine_postprocessing",
        _determine,
        "find out whether keeping only the largest part of a class helps",
        "Try nnU-Net's postprocessing on segmentations with references; writes postprocessing.pkl beside them.",
    )
    parser.add_argument("-i", required=True, type=Path, metavar="DIR", help="segmentations")
    parser.add_argument("-ref", required=True, type=Path, metavar="DIR", help="references")
    _add_side_files(parser)
    parser.add_argument("--remove_postprocessed", action="store_true", help="do not keep the postprocessed files")
    parser = _verb(
        verbs,
        "apply_postprocessing",
        _apply,
        "apply a postprocessing to a folder of segmentations",
        "Apply the postprocessing of a postprocessing.pkl (or .json) to a folder of segmentations.",
    )
    parser.add_argument("-i", required=True, type=Path, metavar="DIR", help="segmentations")
    parser.add_argument("-o", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "-pp_pkl_file", "--pp_pkl_file", required=True, type=Path, metavar="FILE", help="postprocessing.pkl or .json"
    )
    _add_side_files(parser)


def _add_side_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-plans_json", type=Path, metavar="FILE", help="(default: plans.json beside the segmentations)")
    parser.add_argument("-dataset_json", type=Path, metavar="FILE", help="(default: dataset.json beside them)")
    _add_workers(parser)
    add_output(parser)


def _ensemble(options: argparse.Namespace) -> int:
    from napari_nnunet.engine.prediction.vote import VoteSettings
    from napari_nnunet.jobs.choosing.ensemble import ensemble_folders

    vote = VoteSettings(
        method="hard" if options.hard else "soft",
        weights=None if options.weights is None else tuple(options.weights),
        uncertainty=options.uncertainty,
        temperature=options.temperature,
    )
    job = ensemble_folders(options.i, options.o, vote, probabilities=options.save_npz, workers=options.np)
    run_shown(job, options)
    return 0


def _read_info(path: Path) -> DatasetInfo:
    from napari_nnunet.schema.dataset import DatasetInfo

    try:
        return DatasetInfo.parse_json(path.read_text(encoding="utf-8"), where=str(path))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}.") from error


def _read_reader(path: Path | None) -> str | None:
    if path is None:
        return None
    from napari_nnunet.schema.plans import Plans

    try:
        return Plans.parse_json(path.read_text(encoding="utf-8"), where=str(path)).reader
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}.") from error


def _evaluate_folder(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.choosing.evaluate import Rules

    info = _read_info(options.djfile)
    return _evaluate(options, Rules.of(info, reader=_read_reader(options.pfile), surface=options.surface))


def _evaluate_simple(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.images.files import common_ending
    from napari_nnunet.jobs.choosing.evaluate import Rules

    ending = common_ending(options.gt_folder)
    return _evaluate(options, Rules(tuple(options.l), ending, options.il, surface=options.surface))


def _evaluate(options: argparse.Namespace, rules: Rules) -> int:
    from napari_nnunet.jobs.choosing.evaluate import Output, evaluate_folder

    output = Output(options.o or options.pred_folder / "summary.json", options.csv)
    job = evaluate_folder(
        options.gt_folder, options.pred_folder, rules, output, missing_ok=options.chill, workers=options.np
    )
    result = run_shown(job, options)
    summary = result.summary
    for label, values in summary["mean"].items():
        print(f"{label}: Dice {values['Dice']:.4f}" + _surface_text(values))
    print(f"Mean: Dice {summary['foreground_mean']['Dice']:.4f}" + _surface_text(summary["foreground_mean"]))
    print(output.summary)
    return 0


def _surface_text(values: dict[str, float]) -> str:
    return f", HD95 {values['HD95']:.2f} mm, NSD {values['NSD']:.4f}" if "HD95" in values else ""


def _compare(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.choosing.compare import compare_folders, folder_rules

    rules, names = folder_rules(options.first, options.second, options.djfile)
    result = run_shown(compare_folders(options.first, options.second, rules, workers=options.np), options)
    print(result.text(names), end="")
    if options.csv is not None:
        from napari_nnunet.formats.atomic import make_folder, write_text

        make_folder(options.csv.parent)
        write_text(options.csv, result.csv())
    return 0


def _accumulate(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.model.folder import load_model
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.choosing.crossval import accumulate, usable_folds

    workspace = Workspace.resolve(options.workspace, os.environ)
    model = load_model(
        workspace.model_folder(options.dataset, trainer=options.tr, plans=options.p, configuration=options.c)
    )
    folds = usable_folds(model) if options.f is None else tuple(parse_fold(word) for word in options.f)
    job = accumulate(workspace, model, folds, target=options.o, workers=options.np)
    folder, evaluation = run_shown(job, options)
    if evaluation is not None:
        print(f"Mean Dice of {len(evaluation.cases)} cases, folds {' '.join(map(str, folds))}: {evaluation.dice:.4f}")
    print(folder)
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.model.folder import load_model
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.choosing.calibrate import calibrate

    workspace = Workspace.resolve(options.workspace, os.environ)
    models = [
        load_model(workspace.model_folder(options.dataset, trainer=options.tr, plans=options.p, configuration=name))
        for name in options.c
    ]
    folds = None if options.f is None else [parse_fold(word) for word in options.f]
    result, path = run_shown(calibrate(workspace, models, folds), options)
    print(f"Temperature: {result.temperature:.4f}")
    print(path)
    return 0


def _find_best(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.choosing.best import Question, find_best

    workspace = Workspace.resolve(options.workspace, os.environ)
    question = Question(
        configurations=tuple(options.c),
        trainers=tuple(options.tr),
        plans=tuple(options.p),
        folds=None if options.f is None else tuple(parse_fold(word) for word in options.f),
        ensembling=not options.disable_ensembling,
        triples=options.triples,
        overwrite=not options.no_overwrite,
    )
    dataset = workspace.dataset_name(options.dataset_name_or_id)
    answer = run_shown(find_best(workspace, dataset, question, workers=options.np), options)
    print(answer.instructions.read_text(encoding="utf-8"), end="")
    print(answer.instructions)
    return 0


def _predict_best(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.prediction.combined import best_combination
    from napari_nnunet.jobs.prediction.predict_files import FolderSettings, predict_combined_folder
    from napari_nnunet.schema.requests.prediction import PredictSettings

    workspace = Workspace.resolve(options.workspace, os.environ)
    with checked():
        settings = PredictSettings(device=options.device, step=options.step_size, mirroring=not options.disable_tta)
    combination = best_combination(workspace, workspace.dataset_name(options.d), settings)
    if options.uncertainty:
        combination = replace(combination, vote=replace(combination.vote, uncertainty=True))
    folder = FolderSettings(options.i, options.o, keep_finished=options.continue_prediction)
    job = predict_combined_folder(combination, folder, probabilities=options.save_probabilities)
    result = run_shown(job, options)
    if result.failed:
        print(f"{len(result.failed)} of {len(result.failed) + len(result.done)} cases failed.", file=sys.stderr)
        return 1
    return 0


def _recipe(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.results.recipe import STYLES, read_recipe

    print(STYLES[options.style](read_recipe(options.folder)), end="")
    return 0


def _rules(options: argparse.Namespace) -> tuple[Rules, DatasetInfo]:
    from napari_nnunet.jobs.choosing.evaluate import Rules

    info = _read_info(options.dataset_json or options.i / "dataset.json")
    plans = options.plans_json
    if plans is None and (options.i / "plans.json").is_file():
        plans = options.i / "plans.json"
    return Rules.of(info, reader=_read_reader(plans)), info


def _determine(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.choosing.postprocess import determine_postprocessing

    rules, info = _rules(options)
    job = determine_postprocessing(
        options.i, options.ref, rules, info.labels, keep_cleaned=not options.remove_postprocessed, workers=options.np
    )
    result = run_shown(job, options)
    before, after = (scores["foreground_mean"]["Dice"] for scores in (result.before, result.after))
    kept = result.cleaning.describe(info.labels)
    print(
        f"Keep {kept}: Dice {before:.4f} -> {after:.4f}." if kept else f"No postprocessing helps (Dice {before:.4f})."
    )
    print(result.file)
    return 0


def _apply(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.choosing.postprocess import apply_postprocessing

    rules, _ = _rules(options)
    job = apply_postprocessing(options.i, options.o, options.pp_pkl_file, rules, workers=options.np)
    print(run_shown(job, options))
    return 0
