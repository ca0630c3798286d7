"""What decides every voxel of a large result, and whether what lies there already is of the same work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from napari_nnunet.errors import SettingsError
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.formats.large.corrections import by_hand
from napari_nnunet.formats.large.journal import ArithmeticEntry, BlockJournal, FactsEntry, other_work
from napari_nnunet.formats.large.label_image import Destination, LabelImage
from napari_nnunet.formats.large.source import LargeImage
from napari_nnunet.formats.model.folder import TrainedModel, origin_of
from napari_nnunet.jobs.large.objects.numbering import Numbering
from napari_nnunet.jobs.large.survey import require_same_voxels
from napari_nnunet.schema.json_text import first_problem
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.version import __version__

DONE = "Writing the result"  # the stage that begins when all blocks are there
STATE = "state of the image's files"
_RESULT, _MADE = "result", "made_of"


def work_of(
    model: TrainedModel,
    image: LargeImage,
    settings: PredictSettings,
    labels: LabelImage,
    numbers: Numbering | None = None,
) -> dict[str, Any]:
    """Return what decides every voxel of the result: nothing else is continued."""
    folds = model.resolve_folds(settings.folds, settings.checkpoint)
    names = ("step", "mirroring", "gaussian")
    return {
        "model": origin_of(model, folds, settings.checkpoint),
        "settings": {name: getattr(settings, name) for name in names},
        "image": {
            "name": image.name,
            "shapes": [[int(n) for n in array.shape] for array in image.arrays],
            "axes": image.axes,
            "spacing": list(image.geometry.spacing),
        },
        STATE: list(image.stamp()),
        _RESULT: {"name": labels.place.path.name, "chunk": list(labels.chunk)},
        **({} if numbers is None else {"objects": numbers.work}),
    }


def take_up(
    journal: BlockJournal, place: Destination, work: Mapping[str, Any], settings: PredictSettings, *, carry_on: bool
) -> PredictSettings:
    """Begin the journal, or check that it is that of the same work; return settings with the arithmetic noted there."""
    if not place.begun:
        make_folder(place.unfinished)
        journal.begin(work)
        return settings
    if not carry_on:
        raise SettingsError(
            f"{place.unfinished} is the beginning of such a result. Continue it, or delete it to begin again.",
            shell="Add --continue.",
        )
    journal.require_same(work)
    journal.require_of_one_image()
    known = next(iter(journal.all(ArithmeticEntry)), None)
    # All blocks are computed in the same way, whatever would be the fastest now.
    try:
        return settings if known is None else settings.replace(**known.model_dump())
    except ValidationError as error:
        raise journal.damaged(f"in a line 'arithmetic', {first_problem(error)}") from error


def made_of(work: Mapping[str, Any], journal: BlockJournal, image: LargeImage) -> dict[str, Any]:
    """Return what a complete result keeps of its work: model, version, and what :func:`require_complete` looks at."""
    digests = {} if image.files else {str(entry.time): entry.digest for entry in journal.all(FactsEntry)}
    return {**work["model"], "version": __version__, _MADE: {"work": {**work, _RESULT: None}, "digests": digests}}


def require_complete(labels: LabelImage, work: Mapping[str, Any], image: LargeImage) -> Job[None]:
    """Say that a result is complete; raises SettingsError if it is another one than would be made now."""
    place, made = labels.place.path, labels.origin().get(_MADE)
    if not isinstance(made, dict):
        text = f"{place} is complete already"
        yield Note(level="warning", text=f"{text}; it does not record which image and model it was made from.")
        return
    differs = other_work(made.get("work") or {}, {**work, _RESULT: None})
    if differs:
        raise SettingsError(
            f"{place} is complete, but was made with {differs}.{by_hand(place)} Delete it to segment again, or "
            "choose another name."
        )
    if not image.files:
        digests = {int(time): str(digest) for time, digest in dict(made.get("digests") or {}).items()}
        yield from require_same_voxels(image, digests, str(place))
    yield Note(text=f"{place} is complete already.{by_hand(place)}")
