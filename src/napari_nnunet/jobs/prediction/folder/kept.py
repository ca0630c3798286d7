"""Which segmentations of an earlier run are kept: those that are whole and were made of the images that are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from napari_nnunet.errors import ImageError, NnunetError, counted, some
from napari_nnunet.events import Found, Note
from napari_nnunet.formats.dataset.case_files import Case, size_of_case
from napari_nnunet.formats.dicom.output import DICOM_ENDINGS
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.results.made_of import Files, Record, note_record, read_records, record_file
from napari_nnunet.formats.results.objects import found_file
from napari_nnunet.formats.results.probabilities import is_complete
from napari_nnunet.jobs.prediction.folder.case import (
    FolderWork,
    beside,
    dicom_kinds,
    inputs_of,
    model_reader,
    out_of,
)
from napari_nnunet.jobs.prediction.table import found_again

_SHOWN = 10


@dataclass
class Kept:
    """What is kept, and what is to be said of it.

    Parameters
    ----------
    found : dict of int to tuple of Found
        What is in the cases that are kept, by their place (counted for a table only).
    exchanged : list of str
        Cases whose image is another one than their segmentation was made of; they are segmented anew.
    otherwise : list of str
        Cases that are kept, though weights or settings were others.
    unknown : list of str
        Cases that are kept, of which nothing says what they were made of.
    older : list of str
        Those of them that are older than their image.
    """

    found: dict[int, tuple[Found, ...]] = field(default_factory=dict)
    exchanged: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    older: list[str] = field(default_factory=list)


def look_at_kept(cases: Sequence[Case], work: FolderWork) -> Kept:
    """Find the cases whose segmentation is there already, where such are to be kept."""
    kept, folder = Kept(), work.folder
    if not folder.keep_finished or not folder.target.is_dir():
        return kept
    records = read_records(folder.target)
    for index, case in enumerate(cases):
        if (found := _whole(case, work)) is None:
            continue
        try:
            same = _judged(case, work, records, kept)
        except (OSError, NnunetError):  # said when its turn comes
            same = False
        if same:
            kept.found[index] = found
    return kept


def _judged(case: Case, work: FolderWork, records: Mapping[str, Sequence[Record]], kept: Kept) -> bool:
    """Whether the segmentation of a case was made of its image, as far as is known; notes what is to be said."""
    image = inputs_of(case, work.model, work.folder)
    result = Files([found_file(out_of(case, work.model, work.folder))])
    record = next((record for record in records.get(case.name, ()) if result.agree(record.result)), None)
    if record is None:  # of nnU-Net, of an earlier version, or corrected since
        kept.unknown.append(case.name)
        kept.older += [case.name] if image.newest > result.newest else []
        return True
    if not image.agree(record.image):
        kept.exchanged.append(case.name)
        return False
    if record.by != work.by:
        kept.otherwise.append(case.name)
    now = Record(record.by, image.noted_again(record.image), result.noted_again(record.result))
    if now != record:  # copied or touched: the files need not be read once more
        folder = work.folder
        with suppress(NnunetError):
            note_record(record_file(folder.target, folder.part, folder.parts), case.name, now)
    return True


def said_of_kept(kept: Kept, target: Path, there: str) -> Iterator[Note]:
    """Say what was found; ``there`` is what the files beside say of segmentations that have no record."""
    if kept.exchanged:
        yield Note(
            text=f"{_cases(kept.exchanged)} segmented again, as the segmentation in {target} was made from "
            f"another image: {some(kept.exchanged, _SHOWN)}."
        )
    if kept.otherwise:
        yield _mixed(
            target, kept.otherwise, f"segmentations by other weights or settings: {some(kept.otherwise, _SHOWN)}"
        )
    if kept.unknown and there == "others":
        yield _mixed(target, kept.unknown, "results of another model, of other weights or settings, or of other images")
    if kept.older:
        yield Note(
            level="warning",
            text=f"{_cases(kept.older)} kept, though the image is newer than the segmentation in {target}, and nothing "
            f"says which image that was made from: {some(kept.older, _SHOWN)}. Delete those that are of another image, "
            "to have them segmented again.",
        )


def _mixed(target: Path, names: Sequence[str], what: str) -> Note:
    count = counted(len(names), "finished case")
    return Note(
        level="warning",
        text=f"{count} in {target} {'is' if len(names) == 1 else 'are'} kept, though the folder holds {what}. To keep "
        "them apart, use another folder.",
    )


def _cases(names: Sequence[str]) -> str:
    return counted(len(names), "case is", "cases are")


def _whole(case: Case, work: FolderWork) -> tuple[Found, ...] | None:
    """Return what is in a case whose whole output is there to its last byte (counted for a table only); else None."""
    model, folder, settings = work.model, work.folder, work.settings
    written = found_file(out := out_of(case, model, folder))
    try:
        labels, geometry = read_labels(written, reader=model_reader(model) if written == out else None)
    except ImageError:
        return None
    if not _same_size(labels.shape, case, model):
        return None
    if not all(beside(case, out, DICOM_ENDINGS[kind]).is_file() for kind in dicom_kinds(folder)):
        return None
    probabilities = is_complete(beside(case, out, ".npz")) and beside(case, out, ".pkl").is_file()
    if settings.probabilities and not probabilities:
        return None
    if not folder.table:
        return ()
    return found_again(labels, model.dataset, geometry.known_spacing, classes=settings.classes)


def _same_size(shape: tuple[int, ...], case: Case, model: TrainedModel) -> bool:
    """Whether a segmentation has as many voxels along each axis as a case's image, by its header.

    An axis of one voxel may be missing. Where the reader turns volumes, axes may be in another order.
    """
    with suppress(NnunetError):
        if not case.is_dicom:  # those are read whole
            own, _ = size_of_case(case, model_reader(model))
            sizes, found = ([n for n in some if n > 1] for some in (own, shape))
            return sorted(sizes) == sorted(found) if model.turns else sizes == found
    return True


def note_made(case: Case, work: FolderWork, image: str) -> None:
    """Note what the segmentation of a case, which is just written, was made of."""
    folder = work.folder
    result = Files([found_file(out_of(case, work.model, folder))])
    record = Record(work.by, image, result.noted)
    note_record(record_file(folder.target, folder.part, folder.parts), case.name, record)
