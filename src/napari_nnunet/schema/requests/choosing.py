"""Requests about what follows training: join, compare, score, choose, postprocess."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import model_validator

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.model_name import DEFAULT_TRAINER
from napari_nnunet.schema.plans import TRAINABLE
from napari_nnunet.schema.requests.option import (
    Cluster,
    DatasetPosition,
    Folds,
    PlansName,
    Request,
    TrainerName,
    Workers,
    option,
    read_folds,
)

Csv = Annotated[Path | None, option("CSV", "--csv FILE", "Also write one line per case and label, worst first.")]
ByVoxels = Annotated[
    bool,
    option(
        "Ignore geometry",
        "--ignore_geometry --ignore-geometry",
        "Compare voxel by voxel, whatever the headers say about position.",
    ),
]
Output = Annotated[Path, option("Output", "-o OUTPUT", "Folder for the segmentations.")]
Segmentations = Annotated[Path, option("Segmentations", "-i DIR", "Folder with segmentations.")]
ChosenFolds = Annotated[
    Folds, option("Folds", "-f FOLD", "Folds.", otherwise="the dataset's that are trained", reads=read_folds)
]


class EnsembleRequest(Request):
    """Join the probabilities of several models (folders written with --save_probabilities): their mean decides."""

    sources: tuple[Path, ...] = option("Folders", "-i FOLDER", "Folders with CASE.npz and CASE.pkl.", min_length=1)
    target: Output
    probabilities: bool = option("Probabilities", "--save_npz", "Also write the mean probabilities.", default=False)
    weights: tuple[float, ...] | None = option(
        "Weights", "--weights W", "One per folder.", default=None, otherwise="equal"
    )
    method: Literal["soft", "hard"] = option(
        "By",
        "--hard",
        "Whether the mean of the probabilities decides (soft) or the majority of the labels (hard).",
        default="soft",
        row=True,
        sets="hard",
        shell="The majority of the labels decides, not the mean of the probabilities.",
    )
    uncertainty: bool = option(
        "Show uncertainty",
        "--uncertainty",
        "Two layers: entropy (how unsure all are together) and how much the models disagree.",
        default=False,
        row=True,
        shell="Also write maps of entropy and disagreement (0 to 1).",
    )
    classes: bool = option(
        "Classes",
        "--classes",
        "Of a model that finds objects: write classes (cores and borders) instead of numbered objects.",
        default=False,
    )
    temperature: float = option(
        "Temperature", "--temperature T", "For the entropy, as 'calibrate' finds it.", default=1.0, gt=0
    )
    ignore_geometry: bool = option(
        "Ignore geometry",
        "--ignore_geometry --ignore-geometry",
        "Join voxel by voxel, whatever the files say about position.",
        default=False,
    )
    workers: Workers = 0


class _Evaluation(Request):
    reference: Path = option("References", "gt_folder", "Folder with the references.")
    prediction: Path = option("Segmentations", "pred_folder", "Folder with the segmentations.")
    summary: Path | None = option(
        "Summary", "-o FILE", "File to write.", default=None, otherwise="summary.json next to the segmentations"
    )
    missing_ok: bool = option(
        "Missing cases", "--chill", "References without a segmentation are skipped.", default=False
    )
    csv: Csv = None
    ignore_geometry: ByVoxels = False
    surface: float | None = option(
        "Surface distance (mm)",
        "--surface MM",
        "Also measure HD95 and the normalised surface Dice with this tolerance (1 mm if not given); needs MONAI.",
        default=None,
        gt=0,
        bare=1.0,
    )
    workers: Workers = 0
    cluster: Cluster = None


class EvaluateFolderRequest(_Evaluation):
    """Compare a folder of segmentations with a folder of references; writes nnU-Net's summary.json."""

    dataset_json: Path = option("Dataset", "-djfile FILE", "The dataset.json that names the labels.")
    plans_json: Path | None = option(
        "Plans", "-pfile FILE", "The plans.json that names the reader.", default=None, otherwise="by the ending"
    )


class EvaluateSimpleRequest(_Evaluation):
    """Compare a folder of segmentations with a folder of references by label values."""

    labels: tuple[int, ...] = option("Labels", "-l LABEL", "Labels to measure.")
    ignore_label: int | None = option(
        "Ignore label", "-il LABEL", "Value of voxels that are not evaluated.", default=None
    )


class CompareRequest(Request):
    """Compare two folders of segmentations (two models, two readers) by the Dice of each class; writes nothing."""

    first: Path = option("First", "first", "Folder.", row=True)
    second: Path = option("Second", "second", "Folder with files of the same names.", row=True)
    dataset_json: Path | None = option(
        "Dataset", "-djfile FILE", "dataset.json.", default=None, otherwise="the one in a folder", row=True
    )
    csv: Path | None = option("CSV", "--csv FILE", "Also write the table.", default=None)
    ignore_geometry: ByVoxels = False
    workers: Workers = 0


class AccumulateRequest(Request):
    """Copy the validation cases of all folds of a model into one folder and measure them."""

    dataset: DatasetPosition
    configuration: str = option("Configuration", "-c CONFIGURATION", "2d, 3d_fullres, ...")
    target: Path | None = option(
        "Folder", "-o DIR", "An empty or new folder.", default=None, otherwise="crossval_results_folds_..."
    )
    trainer: TrainerName = DEFAULT_TRAINER
    plans: PlansName = "nnUNetPlans"
    folds: ChosenFolds = None
    workers: Workers = 0


class CalibrateRequest(Request):
    """Fit a temperature to the probabilities of the validation cases, for maps of uncertainty."""

    dataset: DatasetPosition
    configurations: tuple[str, ...] = option(
        "Configurations", "-c CONFIGURATION", "One, or those of an ensemble.", min_length=1
    )
    trainer: TrainerName = DEFAULT_TRAINER
    plans: PlansName = "nnUNetPlans"
    folds: ChosenFolds = None


class FindBestRequest(Request):
    """Compare all trained models of a dataset and all pairs of them by cross-validation.

    Determine the postprocessing of the best, and write how to use it.
    """

    dataset: DatasetPosition
    configurations: tuple[str, ...] = option(
        "Configurations",
        "-c CONFIGURATION",
        "Configurations to compare; those not trained are skipped.",
        default=TRAINABLE,
    )
    trainers: tuple[str, ...] = option(
        "Trainers", "-tr TRAINER", "nnU-Net's trainer names.", default=(DEFAULT_TRAINER,)
    )
    plans: tuple[str, ...] = option("Plans", "-p PLANS", "Names of plans.", default=("nnUNetPlans",))
    folds: ChosenFolds = None
    ensembling: bool = option(
        "Ensembles",
        "--disable_ensembling",
        "Also pairs of models.",
        default=True,
        sets=False,
        shell="Single models only.",
    )
    triples: bool = option("Triples", "--triples", "Also ensembles of three.", default=False)
    overwrite: bool = option(
        "Collect again",
        "--no_overwrite",
        "Off: use the cross-validation collected before.",
        default=True,
        sets=False,
        shell="Use the cross-validation collected before.",
    )
    workers: Workers = 0


class _SideFiles(Request):
    plans_json: Path | None = option(
        "Plans",
        "-plans_json FILE",
        "plans.json, which names the reader.",
        default=None,
        otherwise="next to the segmentations",
    )
    dataset_json: Path | None = option(
        "Dataset", "-dataset_json FILE", "dataset.json.", default=None, otherwise="next to the segmentations"
    )
    workers: Workers = 0


class DeterminePostprocessingRequest(_SideFiles):
    """Try nnU-Net's postprocessing on segmentations with references; writes postprocessing.pkl next to them."""

    source: Segmentations
    reference: Path = option("References", "-ref DIR", "Folder with references.")
    keep_cleaned: bool = option(
        "Keep the postprocessed files",
        "--remove_postprocessed",
        "Off: the postprocessed files are removed.",
        default=True,
        sets=False,
        shell="Do not keep the postprocessed files.",
    )
    ignore_geometry: ByVoxels = False


class ApplyPostprocessingRequest(_SideFiles):
    """Apply the postprocessing of a postprocessing.pkl (or .json) to a folder of segmentations."""

    source: Segmentations
    target: Path = option("Output", "-o DIR", "Folder for the results.")
    postprocessing: Path | None = option(
        "Postprocessing", "-pp_pkl_file --pp_pkl_file FILE", "postprocessing.pkl or .json.", default=None
    )
    keep_largest: tuple[str, ...] | None = option(
        "Keep the largest part",
        "--keep_largest LABELS",
        "Instead of a file: of each of these only the largest part is kept. 1 is a label, 1,2 a region, 1+2 both "
        "together.",
        default=None,
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.postprocessing is None) == (self.keep_largest is None):
            raise SettingsError(
                "Say what to keep: either a postprocessing file or labels.",
                shell="Give either -pp_pkl_file or --keep_largest.",
            )
        return self

    @property
    def cleaning(self) -> Cleaning | Path:
        """What is done: the steps, or the file that has them."""
        return Cleaning.of_words(self.keep_largest or ()) if self.postprocessing is None else self.postprocessing


class RecipeRequest(Request):
    """Print how the segmentations of a folder were made."""

    folder: Path = option("Folder", "folder", "Folder of segmentations (or its recipe.json).")
    style: Literal["command", "python", "methods"] = option("As", "--as", "Form of the recipe.", default="command")


class EvaluateObjectsRequest(Request):
    """Compare numbered objects with those of references: average precision, F1, PQ, SEG, missed, split and merged."""

    reference: Path = option("References", "gt_folder", "Folder with the references.")
    prediction: Path = option("Segmentations", "pred_folder", "Folder with the segmentations.")
    summary: Path | None = option(
        "Summary", "-o FILE", "File to write.", default=None, otherwise="objects.json next to the segmentations"
    )
    csv: Path | None = option("CSV", "--csv FILE", "Also write one line per case, worst first.", default=None)
    missing_ok: bool = option("Leave out", "--chill", "Leave out references without a prediction.", default=False)
    workers: Workers = 0


class MeasureObjectsRequest(Request):
    """Measure every object: size, place, shape, and brightness where images are given; one line per object (CSV)."""

    objects: Path = option("Objects", "-i PATH", "A file with numbered objects, or a folder of such files.")
    images: Path | None = option(
        "Images", "--images PATH", "Images (CASE_0000, CASE_0001, ...), for brightness.", default=None
    )
    target: Path = option("Table", "-o FILE", "CSV to write.")
    workers: Workers = 0


class TrackSettings(Request):
    """How objects are followed through time."""

    distance: float | None = option(
        "Farthest move (mm)",
        "--distance MM",
        "How far an object can be from where it was at the time point before.",
        default=None,
        gt=0,
        otherwise="measured",
        row=True,
    )
    gap: int = option(
        "Missing for",
        "--gap TIMES",
        "For how many time points an object may not be seen.",
        default=1,
        ge=0,
        le=100,
        row=True,
    )
    divisions: bool = option(
        "Divisions",
        "--no_divisions",
        "An object can become two, each with a new number.",
        default=True,
        sets=False,
        row=True,
        shell="No object becomes two.",
    )
    change_kind: bool = option(
        "Kinds change",
        "--change_kind",
        "An object can be of another kind later; else only objects of one kind are the same.",
        default=False,
        row=True,
    )


class TrackRequest(TrackSettings):
    """Follow objects through time: the same number at every time point, curves of every object, divisions."""

    objects: Path = option(
        "Objects", "-i DIR", "Numbered objects, a file per time point: SERIES_t000, SERIES_t001 and so on."
    )
    images: Path | None = option(
        "Images", "--images DIR", "Images (CASE_0000, CASE_0001, ...), for brightness.", default=None
    )
    target: Path = option("Folder", "-o DIR", "For the objects with their new numbers, tracks.csv and tracks.png.")
    workers: Workers = 0


class CurvesRequest(Request):
    """Measure every class of a series of segmentations over time: a table and a picture of the curves."""

    source: Path = option(
        "Segmentations", "-i DIR", "A file per time point: NAME_t000, NAME_t001 and so on, or NAME_2024-03-05."
    )
    target: Path = option("Folder", "-o DIR", "For curves.csv and curves.png.")
    dataset_json: Path | None = option(
        "Dataset",
        "-djfile FILE",
        "The dataset.json that names the classes.",
        default=None,
        otherwise="the one beside the segmentations",
    )
    interval: float | None = option(
        "Interval", "--interval N", "Time between two numbers in the names.", default=None, gt=0, otherwise="1"
    )
    unit: str | None = option(
        "Unit", "--unit NAME", "Of the interval, such as days.", default=None, otherwise="time points"
    )
    workers: Workers = 0
