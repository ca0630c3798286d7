"""One case of a folder: its image is read, segmented and written; here, or by a worker of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.intensities import intensity_warnings
from napari_nnunet.engine.prediction.quality import Judged
from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.events import Box, Found, Job, Note, Pump
from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.formats.dataset.case_files import Case, volume_of_case
from napari_nnunet.formats.dicom.output import DICOM_ENDINGS, SEG, STRUCTURES, SegmentationOutput
from napari_nnunet.formats.dicom.series import holds_segments
from napari_nnunet.formats.images.files import read_labels, write_image
from napari_nnunet.formats.images.header import size_given
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.results.made_of import Files, files_behind
from napari_nnunet.formats.results.probabilities import (
    holds_probabilities,
    scratch,
    write_probabilities,
    write_properties,
)
from napari_nnunet.formats.workspace import stamp
from napari_nnunet.grid import Grid, onto
from napari_nnunet.jobs.arithmetic import prediction_choice
from napari_nnunet.jobs.choosing.ensemble import UNCERTAINTY, uncertainty_path
from napari_nnunet.jobs.prediction.objects import write_result
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.predictor import COMPUTING
from napari_nnunet.jobs.prediction.result import Prediction
from napari_nnunet.jobs.prediction.table import found_in
from napari_nnunet.schema.geometry import GIVEN, Geometry, lift
from napari_nnunet.schema.requests.prediction import PredictFolderRequest, PredictSettings
from napari_nnunet.volume import Volume

_ONLY_PICTURES = (".png", ".bmp", ".jpg", ".jpeg")  # formats that hold no volume

#: Segments one volume: (volume, segmentation of the previous stage, array for the probabilities, region).
Segment = Callable[[Volume, NDArray[Any] | None, NDArray[np.float32] | None, Box | None], Job[Prediction]]


@dataclass(frozen=True)
class FolderWork:
    """What is done with every case of a folder.

    Parameters
    ----------
    model : TrainedModel
        The model.
    folder : PredictFolderRequest
        What was asked for.
    settings : PredictSettings
        How it predicts.
    segment : callable, optional
        What segments one volume where it is more than this model: an ensemble.
    output : SegmentationOutput, optional
        How segmentations become DICOM.
    by : str
        A digest of what decides about the segmentations besides the images, for their records.
    """

    model: TrainedModel
    folder: PredictFolderRequest
    settings: PredictSettings
    segment: Segment | None = None
    output: SegmentationOutput | None = None
    by: str = ""


@dataclass(frozen=True)
class Opened:
    """A case whose image was read.

    Parameters
    ----------
    volume : Volume
        The image.
    files : str
        What its files held, as records have it; noted before they are read, so that what changes meanwhile is noticed.
    """

    volume: Volume
    files: str


@dataclass(frozen=True)
class Done:
    """What is to be told of a case that is written.

    Parameters
    ----------
    recipe : dict
        How it was made.
    found : tuple of Found
        What is in it, where a table was asked for.
    quality : Judged, optional
        Its predicted Dice.
    files : str
        What the files of its image held, as records have it.
    """

    recipe: dict[str, Any]
    found: tuple[Found, ...]
    quality: Judged | None
    files: str


def segment_case(case: Case, opened: Opened, work: FolderWork) -> Job[Done]:
    """Segment a case that was read, and write everything that was asked for; the segmentation comes last."""
    result = yield from _one(case, opened.volume, work.model, work.folder, work.settings, work.segment, work.output)
    counted = result.counts, work.model.dataset, result.geometry.known_spacing, result.kinds
    found = found_in(*counted) if work.folder.table else ()
    return Done({**result.recipe, **_asked(work.folder)}, found, result.quality, opened.files)


def arithmetic_of(model: Path, settings: PredictSettings) -> tuple[PredictSettings, str]:
    """Return settings with the arithmetic that a worker of a cluster chooses, for all of them, and its description."""
    choice = prediction_choice(settings, load_model(model).architecture)
    chosen = settings.replace(device=choice.device, backend=choice.backend, precision=choice.precision)
    return chosen, f"{choice} ({choice.why})"


def segment_elsewhere(
    case: Case, model: Path, folder: PredictFolderRequest, settings: PredictSettings, output: SegmentationOutput | None
) -> tuple[Done, tuple[Note, ...]]:
    """Read, segment and write a case on a worker of a cluster, which keeps the network for the next one.

    Returns
    -------
    Done, tuple of Note
        What is to be told of it, and what was said meanwhile.
    """
    work = FolderWork(load_model(model), folder, settings, output=output)
    with Pump(segment_case(case, opened_case(case, work), work)) as pump:
        notes = [event for event in pump if isinstance(event, Note)]
    said = tuple(note for note in notes if not note.text.startswith(COMPUTING))  # the same for all, and said already
    return pump.result, said


def _one(
    case: Case,
    volume: Volume,
    model: TrainedModel,
    folder: PredictFolderRequest,
    settings: PredictSettings,
    segment: Segment | None,
    output: SegmentationOutput | None,
) -> Job[Prediction]:
    yield Note(text=f"{case.name}: {' x '.join(str(n) for n in volume.shape)} voxels.", level="detail")
    strange = intensity_warnings(volume.array, model.plans, model.configuration, model.dataset.channel_names)
    odd = [f"{text.rstrip('.')}." for text in volume.said]
    yield from (Note(level="warning", text=f"{case.name}: {text}") for text in (*odd, *strange))
    previous, box = None, folder.box(volume.shape)
    if folder.previous is not None:
        previous = _previous_of(case, volume, model, folder, folder.previous)
    out = out_of(case, model, folder)
    again = out.exists()
    _require_place(folder)
    make_folder(out.parent)
    with ExitStack() as stack:
        stack.enter_context(_all_or_nothing(case, out))
        probabilities = None
        if settings.probabilities:
            probabilities = stack.enter_context(scratch((model.dataset.labels.heads, *volume.shape), folder.target))
        if segment is not None:
            result = yield from segment(volume, previous, probabilities, box)
        else:
            result = yield from predict(
                model, volume, settings, previous=previous, probabilities=probabilities, roi=box
            )
        if probabilities is not None:
            write_probabilities(lift(probabilities, channels=True), beside(case, out, ".npz"))
            write_properties(result.properties, beside(case, out, ".pkl"))
        if result.uncertainty is not None:
            _write_uncertainty(result, volume.geometry, out)
        if output is not None:
            target = beside(case, out, DICOM_ENDINGS[SEG])
            output.write(result.labels, target, source=case.files[0], series=case.series or "", kinds=result.kinds)
        if again:  # what lies beside no segmentation is not of an earlier run
            _remove_earlier(case, out, result, settings, folder)
        elif not settings.probabilities and holds_probabilities(beside(case, out, ".npz")):
            yield _without_probabilities(case, out)
        # The segmentation comes last: where it exists, everything of the case does.
        said = write_result(result, model.dataset, out, model_reader(model))
    if said:
        yield Note(level="warning", text=f"{case.name}: {said}")
    return result


@contextmanager
def _all_or_nothing(case: Case, out: Path) -> Iterator[None]:
    """Remove what is written beside a segmentation where that cannot be written: it would seem to be of another."""
    paths = [beside(case, out, ending) for ending in (".npz", ".pkl", *DICOM_ENDINGS.values())]
    paths += [uncertainty_path(out, kind, flat=flat) for kind in UNCERTAINTY for flat in (False, True)]
    before = {path: stamp(path) for path in paths}
    try:
        yield
    except BaseException:
        for path, earlier in before.items():
            if stamp(path) != earlier:
                with suppress(OSError):
                    path.unlink()
        raise


def _without_probabilities(case: Case, out: Path) -> Note:
    """Remove probabilities of a run that ended before it wrote their segmentation: ensembles would take them."""
    for ending in (".npz", ".pkl"):
        beside(case, out, ending).unlink(missing_ok=True)
    return Note(text=f"{case.name}: {beside(case, out, '.npz')}, of an earlier run that was not finished, is removed.")


def _remove_earlier(
    case: Case, out: Path, result: Prediction, settings: PredictSettings, folder: PredictFolderRequest
) -> None:
    """Remove what an earlier run wrote beside a segmentation that is written anew, where this one writes none."""
    stale = [] if settings.probabilities else [beside(case, out, ".npz"), beside(case, out, ".pkl")]
    dicom = [beside(case, out, DICOM_ENDINGS[kind]) for kind in DICOM_ENDINGS if kind not in dicom_kinds(folder)]
    stale += [path for path in dicom if holds_segments(path)]
    if result.uncertainty is None:
        stale += [uncertainty_path(out, kind, flat=flat) for kind in UNCERTAINTY for flat in (False, True)]
    for path in stale:
        if path.is_file() and not any(path.samefile(source) for source in case.files if source.exists()):
            path.unlink()


def _previous_of(
    case: Case, volume: Volume, model: TrainedModel, folder: PredictFolderRequest, where: Path
) -> NDArray[Any]:
    """Read the previous stage's segmentation of a case, on the grid of its image."""
    path = where / (case.name + model.dataset.file_ending)
    labels, geometry = read_labels(path, reader=model_reader(model))
    if folder.spacing is not None:  # what was given takes the place of what both files say
        geometry = geometry.with_spacing(folder.spacing, GIVEN)
    what = f"the previous stage's segmentation {path} and the image of {case.name}"
    return onto(labels, geometry, Grid(volume.shape, volume.geometry), what=what, apart=folder.apart)


def _write_uncertainty(result: Prediction, geometry: Geometry, out: Path) -> None:
    for kind, values in zip(UNCERTAINTY, result.uncertainty or (), strict=True):
        target = uncertainty_path(out, kind, flat=geometry.ndim == 2)
        make_folder(target.parent)
        write_image(values, geometry, target)


def _asked(folder: PredictFolderRequest) -> dict[str, Any]:
    """Return what was asked of every image of a folder, beside how the model is applied."""
    asked = {"region": folder.region, "spacing": folder.spacing, "any_spacing": folder.any_spacing}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items() if value}


def model_reader(model: TrainedModel) -> str:
    """Return the name of the reader that a model's images are read by."""
    return model.reader


def opened_case(case: Case, work: FolderWork) -> Opened:
    """Read the image of a case, and note what its files hold; raises ImageError where it is none of the model's."""
    try:
        files = inputs_of(case, work.model, work.folder).noted
    except OSError:  # a file that is gone, or no file: who reads it finds the words
        files = ""
    return Opened(image_of_case(case, work.model, work.folder), files)


def inputs_of(case: Case, model: TrainedModel, folder: PredictFolderRequest) -> Files:
    """Return the files that a case is segmented from: of all its channels, and of a previous stage that is given."""
    paths = [part for path in case.files for part in files_behind(path, case.series)]
    if folder.previous is not None:
        paths.append(folder.previous / (case.name + model.dataset.file_ending))
    return Files(paths)


def image_of_case(case: Case, model: TrainedModel, folder: PredictFolderRequest) -> Volume:
    """Read the image of a case; raises ImageError where it is none of the model's."""
    with size_given(folder.spacing):
        volume = volume_of_case(case, model_reader(model), apart=folder.apart)
    if folder.spacing is not None:
        volume = replace(volume, geometry=volume.geometry.with_spacing(folder.spacing, GIVEN))
    require_storable(case, volume, model)
    require_channels(case, volume, model)
    return volume


def require_storable(case: Case, volume: Volume, model: TrainedModel) -> None:
    """Raise ImageError if an image is a volume and a model segments pictures: their files hold no volume."""
    ending = model.dataset.file_ending
    if len(volume.shape) == 3 and (model_reader(model) == "NaturalImage2DIO" or ending in _ONLY_PICTURES):
        what = "a DICOM series, which is read as a volume" if case.is_dicom else "a volume"
        raise ImageError(
            f"{case.name} ({case.files[0].name}) is {what} of {' x '.join(map(str, volume.shape))} voxels, but "
            f"{model.name} segments pictures ({ending}). Save each slice as a picture, as those that the model was "
            "trained on."
        )


def require_channels(case: Case, volume: Volume, model: TrainedModel) -> None:
    """Raise ImageError if an image has not as many channels as a model was trained on."""
    channels = len(model.dataset.channel_names)
    if volume.channels != channels:
        way = {(3, 1): "Save it in grey.", (4, 1): "Save it in grey.", (1, 3): "Save it in colour (RGB).",
               (4, 3): "Save it without transparency."}.get((volume.channels, channels))  # fmt: skip
        if way is None or len(volume.shape) == 3:
            way = "Save each channel as CASE_0000, CASE_0001, ..., and each time point as a case of its own."
        raise ImageError(
            f"{case.name} has {volume.channels} channel{'s' if volume.channels > 1 else ''}, the model was trained on "
            f"{channels} ({', '.join(model.dataset.channel_names)}). {way}"
        )


def _require_place(folder: PredictFolderRequest) -> None:
    """Ask that the results folder, which was made when the run began, is there: made anew, it lies on another disk."""
    if not folder.target.is_dir():
        raise ResourceError(
            f"The results folder {folder.target} is gone: was its disk removed? Bring it back, then segment the",
            shell="rest with --continue_prediction.",
            window="rest with Continue.",
        )


def out_of(case: Case, model: TrainedModel, folder: PredictFolderRequest) -> Path:
    """Return where the segmentation of a case goes."""
    return folder.target / (case.name + model.dataset.file_ending)


def dicom_kinds(folder: PredictFolderRequest) -> tuple[str, ...]:
    """Return what is written of each case as DICOM."""
    return (SEG,) * folder.dicom_seg + (STRUCTURES,) * folder.rtstruct


def beside(case: Case, out: Path, ending: str) -> Path:
    """Return the file of another kind beside the segmentation of a case."""
    return out.with_name(Path(case.name).name + ending)
