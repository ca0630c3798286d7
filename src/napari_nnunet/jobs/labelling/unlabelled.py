"""Images of which something is not labelled yet: which there are, and whether a model can be asked about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.engine.image.intensities import intensity_warnings
from napari_nnunet.errors import DatasetError, some
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.dataset.case_files import Case, find_cases, volume_of_case
from napari_nnunet.formats.dataset.raw_dataset import survey
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.labelling.judge import best_model
from napari_nnunet.jobs.prediction.folder.case import model_reader, require_channels, require_storable
from napari_nnunet.jobs.prediction.voxel_size import require_near
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.requests.labelling import SuggestRequest
from napari_nnunet.schema.requests.prediction import PredictSettings


@dataclass(frozen=True)
class Known:
    """What is labelled of the images already: names of those that are done, label files of those that are begun."""

    done: tuple[str, ...]
    labels: dict[str, Path]
    scheme: LabelScheme | None
    left_out: str

    @property
    def ignored(self) -> int | None:
        """The label of what nobody looked at."""
        return None if self.scheme is None else self.scheme.ignore_label

    def notes(self) -> Iterator[Note]:
        """Say which images are left out."""
        if self.done:
            yield Note(
                text=f"{len(self.done)} of the images are training cases already ({some(self.done, 3)}) and left out."
            )
        if self.left_out:
            yield Note(level="warning", text=self.left_out)


@dataclass(frozen=True)
class Unlabelled:
    """What there is to suggest from.

    Parameters
    ----------
    images, done : int
        Images of which something is not labelled, and those that are training cases already.
    model : str
        The model that will be asked.
    remarks : tuple of str
        What is odd about the first image for that model, and what is left out, in sentences.
    """

    images: int
    done: int
    model: str
    remarks: tuple[str, ...]


def look_at_unlabelled(workspace: Workspace, request: SuggestRequest) -> Job[Unlabelled]:
    """Look at images before they are ranked: how many there are, and whether the first of them fits the model.

    Raises
    ------
    ModelError
        If the dataset has no trained model yet.
    DatasetError, ImageError, SettingsError
        If there are no images, all of them are labelled, or the first does not fit the model.
    """
    yield Stage(name="Looking at the images")
    dataset = workspace.dataset_name(request.dataset)
    model = best_model(workspace, dataset, request)
    cases, known = unlabelled_images(workspace, dataset, model, request)
    volume = volume_of_case(cases[0], model_reader(model))
    require_storable(cases[0], volume, model)
    require_channels(cases[0], volume, model)
    require_near(model, volume.geometry, PredictSettings())
    odd = intensity_warnings(volume.array, model.plans, model.configuration, model.dataset.channel_names)
    remarks = [f"{cases[0].name}: {text}" for text in odd] + [known.left_out] * bool(known.left_out)
    return Unlabelled(len(cases), len(known.done), model.name, tuple(remarks))


def unlabelled_images(
    workspace: Workspace, dataset: str, model: TrainedModel, request: SuggestRequest
) -> tuple[list[Case], Known]:
    """Return the images of which something is not labelled, at least one, and what is known of them.

    Raises
    ------
    DatasetError
        If there are no images the model can read, or all of them are labelled.
    """
    found = find_cases(
        request.source,
        ending=model.dataset.file_ending,
        channels=len(model.dataset.channel_names),
        reader=model_reader(model),
    )
    there, scheme = _labelled(workspace, dataset)
    sparse = scheme is not None and scheme.ignore_label is not None
    done = tuple(case.name for case in found.cases if case.name in there and not sparse)
    left = [case for case in found.cases if case.name not in done]
    if not left:
        raise DatasetError(
            f"{'The image is a training case' if len(done) == 1 else f'All {len(done)} images are training cases'} of "
            f"{dataset} already. Give images that nobody labelled yet.",
        )
    return left, Known(done, there if sparse else {}, scheme, found.left_out_text)


def _labelled(workspace: Workspace, dataset: str) -> tuple[dict[str, Path], LabelScheme | None]:
    """Return the label files of the training cases, and the classes there are now; a model may be alone."""
    if not (workspace.raw / dataset / "dataset.json").is_file():
        return {}, None
    raw, _ = survey(workspace.raw / dataset)
    return {case.name: case.label for case in raw.cases}, raw.info.labels
