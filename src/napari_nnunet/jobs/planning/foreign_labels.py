"""Labels of cases that another program preprocessed, looked at before a training; here, preprocessing does that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from napari_nnunet.errors import DatasetError, ResourceError, counted
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.dataset.read_case import unknown_in_words, unknown_values
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.preprocessed.cases import labels_file, read_stored_labels
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.processes.pool import Task, each_case, results_of
from napari_nnunet.schema.dataset import DatasetInfo, LabelScheme
from napari_nnunet.schema.json_text import message

_CHECKED = "dataset_labels_checked.json"  # ours alone: which labels were looked at
_UNPACKED = 100  # bytes of labels in memory per byte of a file, roughly
_OUTSIDE = -1  # what nnU-Net's preprocessing writes where the image is empty

_HIGHEST = 2**15 - 1  # that preprocessed files hold, in nnU-Net's type

_Unknown = Callable[[Path, str, LabelScheme], dict[int, int]]


def require_learnable(scheme: LabelScheme) -> None:
    """Raise DatasetError if label values are not 0, 1, 2, ..., which a network can learn only as parts of regions.

    Preprocessed files would hold others instead of values that are too high, a class among them maybe.
    """
    text, highest = scheme.out_of_turn, scheme.all_labels[-1]
    if text is None or (scheme.has_regions and highest <= _HIGHEST):
        return
    if scheme.has_regions:
        text = f"the label value {highest} is higher than {_HIGHEST}, the highest that preprocessed files hold"
    raise DatasetError(
        f"dataset.json: {text}.",
        shell="Give the classes new values, in dataset.json and in the label files; import_folders does that for a new "
        "dataset (-i imagesTr -m labelsTr --map VALUE=NAME ...).",
        window="'Check dataset' in the Training cases dock does that ('Renumber labels').",
    )


def look_at_labels(data: Path, names: Sequence[str], reader: str, info: DatasetInfo) -> Job[None]:
    """Look once at the labels of cases that were not preprocessed here: as they were, and as they are trained.

    What preprocessing marks as outside of the image with -1 cannot be told from voxels that somebody gave this value,
    but where the labels lie beside as they were. Both are trained as background.

    Parameters
    ----------
    data : Path
        Folder of the preprocessed cases.
    names : sequence of str
        Of all cases there.
    reader : str
        nnU-Net's name of what reads the labels beside.
    info : DatasetInfo
        What values mean.

    Raises
    ------
    DatasetError
        If labels hold values that would end the training or be learnt as background, or cannot be read.
    """
    made_here = Journal.of(data).read()
    foreign = [name for name in names if name not in made_here]
    beside = data.parent / "gt_segmentations"
    found = {name: beside / f"{name}{info.file_ending}" for name in foreign}
    given = {name: path for name, path in found.items() if path.is_file()}
    yield from _look(data.parent, beside.name, given, _unknown_in_file, reader, info)
    stored = {name: labels_file(data, name) for name in foreign}
    yield from _look(data.parent, data.name, stored, _unknown_in_stored, reader, info)


def _look(
    base: Path, folder: str, labels: Mapping[str, Path], unknown_in: _Unknown, reader: str, info: DatasetInfo
) -> Job[None]:
    """Look at the labels in one folder, unless these files were found sound before."""
    if not labels:
        return
    files = "".join(f"{path.name} {(s := path.stat()).st_size} {s.st_mtime_ns}\n" for path in labels.values())
    seen = hashlib.sha256(f"{info.labels.model_dump_json()}{files}".encode()).hexdigest()
    checked = message(base / _CHECKED)
    if checked.get(folder) == seen:
        return
    yield Stage(name=f"Looking at the labels of {base.name}", total=len(labels))
    tasks = [Task(name, (path, reader, info.labels), partial(_bytes, path)) for name, path in labels.items()]
    outcomes = yield from each_case(unknown_in, tasks, work=sum(map(_bytes, labels.values())))
    unknown = {name: values for name, values in results_of(outcomes, "looked at").items() if values}
    if not unknown:
        with suppress(ResourceError):  # then they are read again the next time
            write_json(base / _CHECKED, {**checked, folder: seen})
        return
    wrong = [name for name, values in unknown.items() if set(values) != {_OUTSIDE}]
    name = next(iter(wrong or unknown))
    text = f"{labels[name].name}: {unknown_in_words(unknown[name], info.labels)}"
    text += (
        f"; so do the labels of {len(unknown) - 1} more of {counted(len(labels), 'case')}" if len(unknown) > 1 else ""
    )
    remedy = "give these voxels a value that it has, or, where nobody annotated them, that of a label named 'ignore'"
    if not wrong:
        yield Note(level="warning", text=f"{text}. They are trained as background. If they are not, {remedy}.")
        return
    raise DatasetError(
        f"{text}.",
        shell=f"Add them to 'labels' of dataset.json or {remedy}; then preprocess the dataset again.",
        window=f"'Check dataset' in the Training cases dock can name them ('Renumber labels'). Else {remedy}. Then "
        "preprocess the dataset again.",
    )


def _bytes(path: Path) -> float:
    return float(_UNPACKED * path.stat().st_size)


def _unknown_in_file(path: Path, reader: str, scheme: LabelScheme) -> dict[int, int]:
    """Return the values of a label file that a scheme does not define, with their voxels; may run in a worker."""
    return unknown_values(read_labels(path, reader=reader, as_stored=True)[0], scheme)


def _unknown_in_stored(path: Path, _: str, scheme: LabelScheme) -> dict[int, int]:
    """Return the same for preprocessed labels, but for what they mark as outside of the image."""
    labels = read_stored_labels(path)
    return unknown_values(np.where(labels == _OUTSIDE, 0, labels), scheme)
