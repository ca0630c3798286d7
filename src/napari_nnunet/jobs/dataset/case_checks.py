"""What is wrong with one training case, found in a worker process, or with what dataset.json says of all."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from napari_nnunet.engine.image.intensities import usual_range
from napari_nnunet.engine.image.likeness import Likeness, likeness_of
from napari_nnunet.errors import NnunetError, counted, some
from napari_nnunet.events import Note
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase
from napari_nnunet.formats.dataset.read_case import (
    header_in_words,
    label_relation,
    misplaced_in_words,
    unknown_in_words,
)
from napari_nnunet.formats.images.files import count_invalid, read_labels, read_volume
from napari_nnunet.grid import Turned, WhenApart
from napari_nnunet.jobs.case_size import measure_bytes
from napari_nnunet.schema.dataset import IGNORE, DatasetInfo, LabelScheme, unlooked_in_words, unlooked_values
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.volume import Volume

FixName = Literal["set_count", "drop_case", "remap_labels", "set_spacing", "turn_labels", "place_labels", "draw_again"]


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, or may be.

    Parameters
    ----------
    level : {"error", "warning"}
        Errors prevent training, warnings deserve a look.
    where : str
        File, case or key.
    text : str
        What is wrong and what to do.
    fix : str, optional
        Name of the remedy that exists for it.
    in_window : str
        The same as the text, with what to do in a window instead of in a shell; empty where that is no other.
    """

    level: Literal["error", "warning"]
    where: str
    text: str
    fix: FixName | None = None
    in_window: str = ""

    @classmethod
    def of(cls, where: str, error: NnunetError, fix: FixName | None = None) -> Problem:
        """Return the problem that an error tells of."""
        return cls("error", where, error.message, fix, error.in_window)

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.text}"

    @property
    def note(self) -> Note:
        """The same as a warning of a job."""
        window = f"{self.where}: {_ended(self.in_window)}" if self.in_window else ""
        return Note(level="warning", text=f"{self.where}: {_ended(self.text)}", in_window=window)

    @property
    def sentence(self) -> str:
        """What it says in a window."""
        return f"{self.where}: {_ended(self.in_window or self.text)}"


def _ended(text: str) -> str:
    return text if text.endswith(("?", ".")) else f"{text}."


@dataclass(frozen=True)
class CaseFacts:
    """What was seen of one case."""

    problems: tuple[Problem, ...]
    labels: dict[int, int] = field(default_factory=dict)
    spacing: tuple[float, ...] = ()
    spacing_known: bool = True
    spacing_source: str = ""
    orientation: str | None = None
    digest: str = ""
    shape: tuple[int, ...] = ()
    likeness: Likeness | None = None
    remarks: tuple[str, ...] = ()
    intensities: tuple[tuple[float, float] | None, ...] = ()
    bytes_stored: float = 0.0
    bytes_needed: float = 0.0


def needed_bytes(case: TrainingCase, reader: str) -> float:
    """Return the memory that looking at a case takes."""
    return 1.5 * measure_bytes(case, reader)


def look_at_case(case: TrainingCase, reader: str, info: DatasetInfo, apart: WhenApart = "refuse") -> CaseFacts:
    """Read one case and note what is wrong with it; runs in a worker process.

    Parameters
    ----------
    case, reader, info
        The case, and how it is read.
    apart : {"refuse", "resample", "ignore"}
        What preprocessing does with files that lie apart.
    """
    problems: list[Problem] = []
    volume = read_volume(case.images, reader=reader, apart=apart)
    labels, label_geometry = read_labels(case.label, reader=reader)
    geometry = volume.geometry
    if volume.channels != len(info.channel_names):
        problems.append(
            Problem(
                "error",
                case.name,
                f"the image has {counted(volume.channels, 'channel')}, dataset.json names {len(info.channel_names)} "
                f"({', '.join(info.channel_names)})",
            )
        )
    problems += [Problem("warning", case.name, text) for text in volume.notes]
    problems += _invalid_voxels(case, volume, reader)
    problems += _place_problems(case.name, volume, labels.shape, label_geometry, apart)
    values, counts = np.unique(labels, return_counts=True)
    found = {int(value): int(count) for value, count in zip(values, counts, strict=True)}
    problems += _value_problems(case, found, info.labels)
    unlooked = unlooked_values(info, case.name, found)
    if unlooked:
        problems.append(Problem("error", case.label.name, unlooked_in_words(unlooked, info, case.name)))
    data = np.ascontiguousarray(volume.array)
    if data.size and float(data.min()) == float(data.max()):
        problems.append(Problem("warning", case.name, f"every voxel of the image is {float(data.flat[0]):g}"))
    return CaseFacts(
        problems=tuple(problems),
        labels=found,
        spacing=geometry.spacing,
        spacing_known=geometry.spacing_known,
        spacing_source=geometry.spacing_source,
        orientation=geometry.axes_code,
        digest=hashlib.blake2b(data.data, digest_size=16).hexdigest(),
        shape=volume.shape,
        likeness=likeness_of(data[0]),
        remarks=_remarks(geometry, label_geometry),
        intensities=tuple(usual_range(channel) for channel in data),
        bytes_stored=float(math.prod(volume.shape)) * (4 * volume.channels + 2),
        bytes_needed=needed_bytes(case, reader),
    )


def _remarks(image: Geometry, labels: Geometry) -> tuple[str, ...]:
    """Return what is odd about the files of a case; voxels without a number are counted by themselves."""
    alone = [f"of its labels: {text}" for text in labels.remarks if text not in image.remarks]
    return tuple(text for text in (*image.remarks, *alone) if "NaN" not in text)


def _place_problems(
    name: str, volume: Volume, shape: tuple[int, ...], geometry: Geometry, apart: WhenApart
) -> Iterable[Problem]:
    """Return what is said against training with labels, which goes by voxels, by where they lie."""
    own = volume.geometry.spacing
    found = label_relation(volume, shape, geometry)
    if found is not None and shape == volume.shape and apart == "ignore":
        text = f"{header_in_words(found)}; they are taken voxel by voxel, whatever the headers say"
        yield Problem("warning", name, text, "turn_labels" if isinstance(found, Turned) else "place_labels")
        return
    if isinstance(found, Turned):
        yield Problem("error", name, misplaced_in_words(found), "turn_labels")
        return
    if shape != volume.shape:
        text = f"the image has {times(volume.shape)} voxels, its labels have {times(shape)}"
        yield Problem("error", name, text, "drop_case")
    if not np.allclose(own, geometry.spacing, rtol=1e-3):
        text = f"the image has a voxel size of {times(own)} mm, its labels of {times(geometry.spacing)}"
        yield Problem("error", name, text, "set_spacing")
    elif found is not None:
        yield Problem("error", name, misplaced_in_words(found), "place_labels")


def _invalid_voxels(case: TrainingCase, volume: Volume, reader: str) -> Iterable[Problem]:
    """Name files with NaN or infinite voxels; ITK, and with it nnU-Net, reads them as 0 in NIfTI files."""
    for path in case.images:
        invalid = count_invalid(path, volume)
        if invalid:
            silent = reader.startswith("SimpleITK") and path.name.endswith((".nii", ".nii.gz"))
            what = "they are read as 0" if silent else "replace them"
            yield Problem(
                "warning" if silent else "error",
                path.name,
                f"{counted(invalid, 'voxel is', 'voxels are')} NaN or infinite; {what}",
            )
            if not silent:
                return  # other readers join the channels before they are counted


def _value_problems(case: TrainingCase, found: dict[int, int], scheme: LabelScheme) -> Iterable[Problem]:
    allowed = {*scheme.all_labels, scheme.ignore_label}
    unknown = {value: count for value, count in found.items() if value not in allowed}
    if unknown:
        yield Problem("error", case.label.name, unknown_in_words(unknown, scheme), "remap_labels")
    else:
        yield from empty_problems(case.label.name, found, scheme)


def empty_problems(name: str, found: Iterable[int], scheme: LabelScheme) -> Iterable[Problem]:
    """Name labels in which there is nothing to learn from."""
    known = set(found)
    if scheme.ignore_label is not None and known == {scheme.ignore_label}:
        yield Problem("warning", name, "every voxel is 'ignore': nothing can be learnt from it", "drop_case")
    elif known.isdisjoint(scheme.foreground_labels):
        yield Problem("warning", name, "no foreground: only background is labelled")


def times(numbers: Iterable[float]) -> str:
    """Return sizes as people write them: 1 x 0.5 x 0.5."""
    return " x ".join(f"{n:g}" for n in numbers)


def scheme_problems(scheme: LabelScheme) -> Iterable[Problem]:
    """Name regions that no result can show: what is painted later covers them whole."""
    order = scheme.regions_class_order or ()
    members = [set(region) if isinstance(region, tuple) else {region} for region in scheme.regions]
    for i, name in enumerate(scheme.head_names if scheme.has_regions else ()):
        over = [j for j in range(i + 1, len(members)) if members[i] <= members[j]]
        if over:
            text = (
                f"the region '{name}' can never appear in a result: '{scheme.head_names[over[0]]}' is painted after it "
                "and covers it. List regions from the largest to the smallest, and regions_class_order in "
                "the same order"
            )
            yield Problem("warning", "dataset.json", text)
    for value in sorted({value for value in order if order.count(value) > 1}):
        same = [scheme.head_names[i] for i, other in enumerate(order) if other == value]
        text = f"{' and '.join(same)} are both painted as {value}, so that a result cannot tell them apart"
        yield Problem("warning", "dataset.json", text)
    yield from _painted_otherwise(scheme, order, members)


def description_problems(info: DatasetInfo) -> Iterable[Problem]:
    """Name what dataset.json says otherwise than it is probably meant, and what nnU-Net would not notice."""
    keys = [str(key) for key in info.raw.get("channel_names", info.raw.get("modality", {}))]
    if keys and keys != [str(number) for number in range(len(keys))]:
        order = some([f"_{number:04d} is '{name}'" for number, name in enumerate(info.channel_names)])
        text = f"'channel_names' has the keys {some(keys)} where 0, 1, ... are expected; "
        text += "its values count, in their order: "
        yield Problem("warning", "dataset.json", text + order)
    for name in info.channel_names:
        if name.casefold() != "ct" and "ct" in re.split(r"[\W_]+", name.casefold()):
            text = (
                f"the channel '{name}' is normalised case by case; only one that is named 'CT' is taken for CT, whose "
            )
            yield Problem("warning", "dataset.json", f"{text}intensities mean the same in every case")
    scheme = info.labels
    values = [value for value in scheme.labels.values() if isinstance(value, int)]
    for value in sorted({value for value in values if values.count(value) > 1}):
        same = some([f"'{name}'" for name, other in scheme.labels.items() if other == value])
        yield Problem("warning", "dataset.json", f"{same} have the same value, {value}: they are one class in results")
    for name, region in scheme.labels.items():
        if name.casefold() == IGNORE != name:
            text = f"'{name}' is learnt as a class; voxels that nobody annotated are named '{IGNORE}', in lower case"
            yield Problem("warning", "dataset.json", text)
        if isinstance(region, tuple) and len(set(region)) > 1 and 0 in region:
            text = (
                f"the region '{name}' has the background (0) among its values, so that it covers what is around it, too"
            )
            yield Problem("warning", "dataset.json", text)


def _painted_otherwise(scheme: LabelScheme, order: Sequence[int], members: Sequence[set[int]]) -> Iterable[Problem]:
    """Name regions that results show with a value of another region, or with one that no label has."""
    known = set().union(*members)
    for name, value, own in zip(scheme.head_names, order, members, strict=False):
        if value in own or order.count(value) > 1:
            continue
        mine = f"the region '{name}' ({', '.join(map(str, sorted(own)))}) is painted as {value} in results"
        if value in known:
            other = "which is not one of its values: results read with dataset.json show another region there"
        else:
            other = "a value that no region has: results read with dataset.json lack it"
        yield Problem(
            "warning", "dataset.json", f"{mine}, {other}. List regions_class_order in the order of the regions"
        )
