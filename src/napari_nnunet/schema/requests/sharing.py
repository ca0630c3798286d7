"""Requests about giving models away and taking them in; the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Gt

from napari_nnunet.schema.model_name import DEFAULT_TRAINER
from napari_nnunet.schema.requests.option import (
    DatasetFlag,
    Folds,
    PlansName,
    Request,
    TrainerName,
    option,
    read_folds,
)

Replace = Annotated[bool, option("Replace", "--replace", "Move models of the same name to the trash first.")]


class ExportSettings(Request):
    """What goes into a zip of models, and onto its card."""

    folds: Annotated[
        Folds, option("Folds", "-f FOLD", "Which.", otherwise="all that were trained", reads=read_folds)
    ] = None
    checkpoints: Annotated[tuple[str, ...], option("Checkpoints", "-chk NAME", "Checkpoints.")] = (
        "checkpoint_final.pth",
    )
    validation: Annotated[
        bool, option("Validation", "--exp_cv_preds", "Also the segmentations of the validation cases.")
    ] = False
    light: Annotated[
        bool, option("Light", "--light", "Only what inference needs: half the size, cannot be trained further.")
    ] = False
    title: Annotated[str | None, option("Title", "--title TEXT", "On the card: its title.")] = None
    description: Annotated[
        str | None, option("Description", "--description TEXT", "On the card: what the model is for.")
    ] = None
    authors: Annotated[str | None, option("Authors", "--authors TEXT", "On the card: who made it.")] = None
    licence: Annotated[str | None, option("Licence", "--licence TEXT", "On the card: licence of the weights.")] = None
    citation: Annotated[str | None, option("Citation", "--citation TEXT", "On the card: what to cite.")] = None
    thumbnail: Annotated[
        Path | None,
        option("Thumbnail", "--thumbnail PNG", "On the card: a picture (remember that it may show a patient)."),
    ] = None
    replace_zip: Annotated[bool, option("Replace", "--replace", "Replace a zip of that name.")] = False

    @property
    def card(self) -> dict[str, str]:
        """What was said for the card."""
        names = ("title", "description", "authors", "licence", "citation")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class ExportRequest(ExportSettings):
    """Write trained models of a dataset into a zip that this program and nnU-Net install."""

    dataset: DatasetFlag
    target: Annotated[Path, option("Zip", "-o ZIP", "The file.")]
    configurations: Annotated[
        tuple[str, ...] | None,
        option("Configurations", "-c CONFIGURATION", "Which.", otherwise="all that were trained"),
    ] = None
    trainer: TrainerName = DEFAULT_TRAINER
    plans: PlansName = "nnUNetPlans"
    strict: Annotated[
        bool,
        option(
            "Strict",
            "--not_strict",
            "Whether a configuration that was not trained is an error.",
            sets=False,
            shell="Skip configurations (-c) that were not trained.",
        ),
    ] = True


class InstallRequest(Request):
    """Unpack the models of a zip (of this program or nnU-Net) into the workspace, after checking it."""

    source: Annotated[Path, option("Zip", "zip", "The file.")]
    replace_models: Replace = False


class DownloadRequest(Request):
    """Download a zip with models and install them; after an interruption the same command continues."""

    url: Annotated[str, option("Address", "url", "https://...zip")]
    sha256: Annotated[str | None, option("Checksum", "--sha256 SUM", "Checksum of the file.")] = None
    replace_models: Replace = False


class ImportV1Request(Request):
    """Turn a trained model of nnU-Net v1 (TRAINER__PLANS with plans.pkl and fold_*) into the layout of v2.

    It is read without executing anything.
    """

    source: Annotated[
        Path, option("Folder", "input_folder", "nnUNet/3d_fullres/TaskXXX_Name/nnUNetTrainerV2__nnUNetPlansv2.1")
    ]
    name: Annotated[str, option("Dataset", "output_dataset_name", "DatasetXXX_Name.")]
    dataset_json: Annotated[
        Path | None, option("Dataset", "-dataset_json FILE", "The task's dataset.json: names of classes.")
    ] = None


class DemoRequest(Request):
    """Make synthetic volumes, plan and preprocess them, train, segment volumes that were not trained on.

    Prints the Dice and writes pictures. Needs no data, no screen and no GPU.
    """

    target: Annotated[Path, option("Folder", "-o DIR", "Folder for everything.")] = Path("demo-output")
    minutes: Annotated[
        float | None,
        Gt(0),
        option("Minutes", "--minutes M", "Train as much as fits into this time.", otherwise="500 steps"),
    ] = None
    gui: Annotated[bool, option("Show", "--gui", "Then open napari on the result.")] = False


class DoctorRequest(Request):
    """Look at this computer and say what is missing."""
