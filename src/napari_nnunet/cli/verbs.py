"""What the command line can do: a literal table of verbs, their requests, their functions, and nnU-Net's odd names."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_nnunet.schema.requests.option import Request


#: Other spellings.
ALIASES: dict[str, tuple[str, ...]] = {
    "convert_MSD_dataset": ("convert_msd_dataset",),
    "convert_old_nnUNet_dataset": ("convert_old_nnunet_dataset",),
}

#: Flags that nnU-Net's users type and that have no meaning here: prediction needs no worker processes, and there is
#: one way to measure a dataset.
UNUSED: dict[str, tuple[str, ...]] = {
    "predict": ("-npp", "-nps"),
    "predict_from_modelfolder": ("-npp", "-nps"),
    "plan_and_preprocess": ("-fpe",),
    "extract_fingerprint": ("-fpe",),
}

Parsers = Any  # argparse names its own type only privately


@dataclass(frozen=True)
class Verb:
    """A word of the command line.

    Parameters
    ----------
    name : str
        As it is typed.
    room : str
        Where its request (``schema.requests``) and its function (``cli``) live.
    request : str
        The class of the request, whose docstring explains the verb.
    help : str
        A line for the list of all verbs.
    together : bool
        Whether the function takes all requests of a line at once, not one after the other.
    """

    name: str
    room: str
    request: str
    help: str
    together: bool = False

    @property
    def kind(self) -> type[Request]:
        """The class of the request; loaded when it is needed."""
        found: type[Request] = getattr(import_module(f"napari_nnunet.schema.requests.{self.room}"), self.request)
        return found

    @property
    def run(self) -> Any:
        """The function that carries it out."""
        return getattr(import_module(f"napari_nnunet.cli.rooms.{self.room}"), self.name)

    @property
    def description(self) -> str:
        """What it does, in full."""
        return " ".join((self.kind.__doc__ or "").split())

    def add_to(self, parsers: Parsers, *, whole: bool) -> argparse.ArgumentParser:
        """Add the verb, with its flags only where they are needed: it takes time to make all of them."""
        aliases = ALIASES.get(self.name, ())
        if not whole:
            return parsers.add_parser(self.name, help=self.help, aliases=aliases, add_help=False)  # type: ignore[no-any-return]
        from napari_nnunet.cli.flags import add_flags, add_unused  # the list of verbs needs no requests
        from napari_nnunet.cli.shell import ShellRequest  # likewise

        parser: argparse.ArgumentParser = parsers.add_parser(
            self.name, help=self.help, description=self.description, aliases=aliases, allow_abbrev=False
        )
        add_flags(parser, self.kind)
        add_unused(parser, UNUSED.get(self.name, ()))
        add_flags(parser.add_argument_group("where and how"), ShellRequest)  # type: ignore[arg-type]
        parser.set_defaults(verb=self.name)
        return parser


VERBS: tuple[Verb, ...] = (
    Verb("predict", "prediction", "PredictRequest", "segment a folder of images with a model of the workspace"),
    Verb(
        "predict_from_modelfolder",
        "prediction",
        "PredictFromModelfolderRequest",
        "segment a folder of images with the model in a folder",
    ),
    Verb(
        "predict_image",
        "large",
        "PredictImageRequest",
        "segment one image of any size (OME-Zarr, BigTIFF, ...) block by block, whatever memory there is",
    ),
    Verb("look", "dataset", "LookRequest", "show what would be read of images, and how"),
    Verb(
        "import_folders",
        "dataset",
        "ImportFoldersRequest",
        "make a dataset from a folder of images and a folder of masks",
    ),
    Verb(
        "annotated_classes",
        "dataset",
        "AnnotatedClassesRequest",
        "show or say in which cases not every class was looked for",
    ),
    Verb("convert_MSD_dataset", "dataset", "ConvertMsdRequest", "convert a task of the Medical Segmentation Decathlon"),
    Verb("convert_old_nnUNet_dataset", "dataset", "ConvertOldRequest", "convert a dataset of nnU-Net v1"),
    Verb(
        "generate_dataset_json",
        "dataset",
        "DatasetJsonRequest",
        "write the dataset.json of a folder with imagesTr and labelsTr",
    ),
    Verb("plot_overlay_pngs", "dataset", "OverlaysRequest", "draw a picture of every training case with its labels"),
    Verb("plan_and_preprocess", "planning", "PlanAndPreprocessRequest", "measure, plan and preprocess datasets"),
    Verb("extract_fingerprint", "planning", "FingerprintRequest", "measure the training cases of datasets"),
    Verb("plan_experiment", "planning", "PlanRequest", "plan measured datasets"),
    Verb("preprocess", "planning", "PreprocessRequest", "preprocess planned datasets"),
    Verb("verify_dataset_integrity", "dataset", "VerifyRequest", "check raw datasets and list every problem"),
    Verb("move_plans_between_datasets", "planning", "MovePlansRequest", "use the plans of one dataset for another"),
    Verb("folds", "planning", "FoldsRequest", "show which cases train and validate in every fold, or make other folds"),
    Verb("train", "training", "TrainCommand", "train folds of a configuration", together=True),
    Verb("train_all", "training", "TrainAllRequest", "train configurations and folds as jobs of a scheduler"),
    Verb("trainings", "training", "TrainingsRequest", "show the trainings of the workspace, or stop them"),
    Verb("ensemble", "choosing", "EnsembleRequest", "combine the predictions of several models"),
    Verb("evaluate_folder", "choosing", "EvaluateFolderRequest", "evaluate segmentations against references"),
    Verb("evaluate_simple", "choosing", "EvaluateSimpleRequest", "the same without dataset.json"),
    Verb("derive_objects", "dataset", "DeriveObjectsRequest", "derive the classes to learn from numbered objects"),
    Verb("evaluate_objects", "choosing", "EvaluateObjectsRequest", "compare numbered objects with references"),
    Verb("measure", "choosing", "MeasureObjectsRequest", "write a table of numbered objects: size, place, shape"),
    Verb("track", "choosing", "TrackRequest", "give objects of a time series the same number at every time"),
    Verb("curves", "choosing", "CurvesRequest", "measure every class of a time series, with a plot of its volume"),
    Verb("compare", "choosing", "CompareRequest", "compare two folders of segmentations, worst cases first"),
    Verb(
        "accumulate_crossval_results",
        "choosing",
        "AccumulateRequest",
        "collect the validation cases of all folds and evaluate them",
    ),
    Verb("calibrate", "choosing", "CalibrateRequest", "calibrate the probabilities of a model or an ensemble"),
    Verb(
        "find_best_configuration",
        "choosing",
        "FindBestRequest",
        "compare all trained models and their ensembles, choose the best",
    ),
    Verb(
        "predict_best",
        "prediction",
        "PredictBestRequest",
        "segment a folder of images with what find_best_configuration chose",
    ),
    Verb(
        "recipe",
        "choosing",
        "RecipeRequest",
        "tell how segmentations were made: as a command, as Python, as a methods paragraph",
    ),
    Verb(
        "determine_postprocessing",
        "choosing",
        "DeterminePostprocessingRequest",
        "find out whether keeping only the largest part of a class helps",
    ),
    Verb(
        "apply_postprocessing",
        "choosing",
        "ApplyPostprocessingRequest",
        "apply a postprocessing to a folder of segmentations",
    ),
    Verb("find_label_errors", "labelling", "FindLabelErrorsRequest", "list the training cases whose labels look wrong"),
    Verb("suggest", "labelling", "SuggestRequest", "say which unlabelled images, slices or boxes to label next"),
    Verb("export_model_to_zip", "sharing", "ExportRequest", "write trained models into a zip, to share them"),
    Verb("export_model", "sharing", "CarryRequest", "write a model as ONNX or OpenVINO, to run it elsewhere"),
    Verb("install_pretrained_model_from_zip", "sharing", "InstallRequest", "install models from a zip"),
    Verb("download_pretrained_model_by_url", "sharing", "DownloadRequest", "download a zip and install its models"),
    Verb("list_models", "sharing", "ListModelsRequest", "show the models of a catalogue that can be fetched by name"),
    Verb("fetch_model", "sharing", "FetchModelRequest", "download a model of a catalogue by its name and install it"),
    Verb("import_old_nnunet_model", "sharing", "ImportV1Request", "import a trained model of nnU-Net v1"),
    Verb(
        "measure_presets",
        "prediction",
        "MeasurePresetsRequest",
        "measure what the presets fast and balanced cost in Dice",
    ),
    Verb("quantize", "sharing", "QuantizeRequest", "prepare a model for 8-bit arithmetic and measure it"),
    Verb("doctor", "sharing", "DoctorRequest", "check this computer and say what is missing"),
    Verb("demo", "sharing", "DemoRequest", "plan, train and segment synthetic volumes"),
)


def named(word: str) -> Verb | None:
    """Return the verb of a word or an alias."""
    return next((verb for verb in VERBS if word in (verb.name, *ALIASES.get(verb.name, ()))), None)
