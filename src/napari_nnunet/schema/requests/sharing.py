"""Requests about giving models away and taking them in; the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import model_validator

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.model_name import DEFAULT_TRAINER
from napari_nnunet.schema.names import typed
from napari_nnunet.schema.requests.option import DatasetFlag, Folds, PlansName, Request, TrainerName, option, read_folds

CarryFormat = Literal["onnx", "openvino", "bioimageio"]
Replace = Annotated[bool, option("Replace", "--replace", "Move models of the same name to the trash first.")]


class ExportSettings(Request):
    """What goes into a zip of models, and onto its card."""

    folds: Folds = option(
        "Folds", "-f FOLD", "Which.", default=None, otherwise="all that were trained", reads=read_folds
    )
    checkpoints: tuple[str, ...] = option("Checkpoints", "-chk NAME", "Checkpoints.", default=("checkpoint_final.pth",))
    validation: bool = option(
        "Validation", "--exp_cv_preds", "Also the segmentations of the validation cases.", default=False
    )
    light: bool = option(
        "Only what segmenting needs: half the size",
        "--light",
        "Only what inference needs: half the size, cannot be trained further.",
        default=False,
        row=True,
    )
    title: str | None = option(
        "Title", "--title TEXT", "On the card: what the model is called.", default=None, row=True
    )
    description: str | None = option(
        "Description",
        "--description TEXT",
        "On the card: what the model is for, and on which images it was trained.",
        default=None,
        row=True,
    )
    authors: str | None = option("Authors", "--authors TEXT", "On the card: who made it.", default=None, row=True)
    licence: str | None = option(
        "Licence",
        "--licence TEXT",
        "On the card: the licence under which others may use the weights, e.g. CC BY 4.0.",
        default=None,
        row=True,
    )
    citation: str | None = option("Citation", "--citation TEXT", "On the card: what to cite.", default=None, row=True)
    thumbnail: Path | None = option(
        "Picture",
        "--thumbnail PNG",
        "On the card: a picture (remember that it may show a patient).",
        default=None,
        row=True,
    )
    replace_zip: bool = option("Replace", "--replace", "Replace a zip of that name.", default=False)

    @property
    def card(self) -> dict[str, str]:
        """What was said for the card."""
        names = ("title", "description", "authors", "licence", "citation")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class ExportRequest(ExportSettings):
    """Write trained models of a dataset into a zip that this program and nnU-Net install."""

    dataset: DatasetFlag
    target: Path = option("Zip", "-o ZIP", "The file.")
    configurations: tuple[str, ...] | None = option(
        "Configurations", "-c CONFIGURATION", "Which.", default=None, otherwise="all that were trained"
    )
    trainer: TrainerName = DEFAULT_TRAINER
    plans: PlansName = "nnUNetPlans"
    strict: bool = option(
        "Strict",
        "--not_strict",
        "Whether a configuration that was not trained is an error.",
        default=True,
        sets=False,
        shell="Skip configurations (-c) that were not trained.",
    )


class CarryRequest(Request):
    """Write a trained model as ONNX or OpenVINO networks that run without this program and without torch.

    The zip holds a network per fold, description.json (all that is done around them) and segment.py, which segments
    images with numpy, scipy and onnxruntime or openvino alone. With --format bioimageio it is a package of
    bioimage.io instead: one ONNX graph for all folds, rdf.yaml, a test input with its output.
    """

    model: Path = option("Model", "-m FOLDER", "Folder of a trained model (with plans.json and fold_*).")
    target: Path = option("Zip", "-o ZIP", "The file.")
    format: CarryFormat = option(
        "Format", "--format FORMAT", "onnx, openvino, or bioimageio.", default="onnx", row=True
    )
    folds: Folds = option(
        "Folds", "-f FOLD", "Which.", default=None, otherwise="all that were trained", reads=read_folds
    )
    checkpoint: str = option("Checkpoint", "-chk NAME", "Checkpoint.", default="checkpoint_final.pth")
    half: bool = option(
        "Half the size",
        "--float16",
        "Weights are kept as float16: half the size, computed in float32.",
        default=False,
        row=True,
    )
    eight_bit: bool = option(
        "8-bit",
        "--int8",
        "Weights are kept as 8-bit numbers, a quarter of the size, and computed with in 8 bits where the runtime can. "
        "Needs a model that was made 8-bit and lost no accuracy.",
        default=False,
        row=True,
        shell="Weights are kept as 8-bit numbers, a quarter of the size, and computed with in 8 bits where the runtime "
        "can. Needs a model that was quantised and lost no accuracy (quantize).",
    )
    mirrored: bool = option(
        "Mirroring inside",
        "--mirrored",
        "bioimageio: also average over mirrored copies within the network, up to 8 times slower.",
        default=False,
        row=True,
    )
    replace_zip: bool = option("Replace", "--replace", "Replace a zip of that name.", default=False)

    @property
    def kept(self) -> Literal["float32", "float16", "int8"]:
        """How weights are kept."""
        if self.eight_bit:
            return "int8"
        return "float16" if self.half else "float32"

    @model_validator(mode="after")
    def _is_a_zip(self) -> Self:
        if self.target.suffix.lower() != ".zip":
            named = self.target.with_name(f"{self.target.stem}.zip")
            raise SettingsError(
                f"What is exported is a zip, but {self.target.name} does not end in .zip.",
                shell=f"Write -o {typed(named)}; the networks are within it.",
                window="Choose a name that ends in .zip; the networks are within it.",
            )
        return self

    @model_validator(mode="after")
    def _kept_one_way(self) -> Self:
        if self.half and self.eight_bit:
            raise SettingsError(
                "Weights are kept as float16 or as 8-bit numbers, not both.",
                shell="Leave out --float16 or --int8.",
                window="Switch 'Half the size' or '8-bit' off.",
            )
        return self

    @model_validator(mode="after")
    def _mirrors_once(self) -> Self:
        if self.mirrored and self.format != "bioimageio":
            raise SettingsError(
                f"segment.py mirrors by itself; a network of format {self.format} has no mirroring inside.",
                shell="Leave --mirrored out, or choose --format bioimageio.",
                window="Switch mirroring inside off, or choose bioimageio.",
            )
        return self


class InstallRequest(Request):
    """Unpack the models of a zip (of this program or nnU-Net) into the workspace, after checking it."""

    source: Path = option("Zip", "zip", "The file.")
    replace_models: Replace = False


class DownloadRequest(Request):
    """Download a zip with models and install them; after an interruption the same command continues."""

    url: str = option("Address", "url", "https://...zip")
    sha256: str | None = option("Checksum", "--sha256 SUM", "Checksum of the file.", default=None)
    replace_models: Replace = False


class ListModelsRequest(Request):
    """Show the models of a catalogue: what they find, in which images, licence and size. Nothing is downloaded.

    A catalogue is a small JSON file that somebody who shares models publishes.
    """

    catalogue: str = option(
        "Catalogue of models",
        "--catalogue ADDRESS",
        "Address (https://...) or file of the catalogue; with #sha256=CHECKSUM at its end, only exactly that is used, "
        "with #ed25519=KEY, only one that this public key signed.",
        default="",
        otherwise="the variable NAPARI_NNUNET_CATALOGUE",
    )


class FetchModelRequest(ListModelsRequest):
    """Download a model of a catalogue by its name, check it and install it.

    Its card is shown before; after an interruption the same command continues.
    """

    name: str = option("Model", "NAME", "Name of a model, as list_models shows it.")
    replace_models: Replace = False


class ImportV1Request(Request):
    """Turn a trained model of nnU-Net v1 (TRAINER__PLANS with plans.pkl and fold_*) into the layout of v2.

    It is read without executing anything.
    """

    source: Path = option("Folder", "input_folder", "nnUNet/3d_fullres/TaskXXX_Name/nnUNetTrainerV2__nnUNetPlansv2.1")
    name: str = option("Dataset", "output_dataset_name", "DatasetXXX_Name.")
    dataset_json: Path | None = option(
        "Dataset", "-dataset_json FILE", "The task's dataset.json: names of classes.", default=None
    )


class DemoRequest(Request):
    """Make synthetic volumes, plan and preprocess them, train, segment volumes that were not trained on.

    Prints the Dice and writes pictures. Needs no data, no screen and no GPU.
    """

    target: Path = option("Folder", "-o DIR", "Folder for everything.", default=Path("demo-output"))
    minutes: float | None = option(
        "Minutes", "--minutes M", "Train as much as fits into this time.", default=None, gt=0, otherwise="500 steps"
    )
    objects: bool = option(
        "Numbered objects",
        "--objects",
        "With pictures of touching nuclei, each of which gets its own number.",
        default=False,
    )
    gui: bool = option("Show", "--gui", "Then open napari on the result.", default=False)


class QuantizeRequest(Request):
    """Find what a model needs to run in 8-bit arithmetic (--precision int8), and measure it on its validation cases.

    Ranges are found on the training cases of its dataset; eight_bit.json is written into the model's folder. Needs
    NNCF: pip install 'napari-nnunet[int8]'.
    """

    model: Path = option("Model", "-m MODEL", "Model folder.")
    folds: Folds = option(
        "Folds", "-f FOLD", "Which.", default=None, otherwise="all that were trained", reads=read_folds
    )
    cases: int = option("Cases", "--cases N", "Validation cases per fold that are compared.", default=20, ge=1)


class DoctorRequest(Request):
    """Look at this computer and say what is missing."""

    again: bool = option(
        "Measure again",
        "--measure",
        "Measure again which arithmetic is the fastest here, whatever is remembered.",
        default=False,
    )
