"""Raw datasets: dataset.json, imagesTr, labelsTr, or files listed in dataset.json.

The layout is the one of nnU-Net's documentation/dataset_format.md.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError, counted, some
from napari_nnunet.events import Note
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.images.files import ENDINGS, adapter_for
from napari_nnunet.schema.dataset import ANNOTATED, BACKGROUND, IGNORE, DatasetInfo, looked_for
from napari_nnunet.schema.names import is_plain, shown
from napari_nnunet.schema.objects import ObjectScheme

_SHOWN = 20  # problems listed in one message
_MARKED = "a case name must not end in _seg, which marks preprocessed labels"


@dataclass(frozen=True)
class TrainingCase:
    """A case with its reference segmentation."""

    name: str
    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class RawDataset:
    """A dataset as it lies in nnUNet_raw.

    Parameters
    ----------
    folder : Path
        ``DatasetXXX_Name``.
    info : DatasetInfo
        Its dataset.json.
    cases : tuple of TrainingCase
        Sorted by name, or in the order of the list in dataset.json.
    left_out : tuple of str
        Images that belong to no case: with another ending than dataset.json says, or in a subfolder.
    """

    folder: Path
    info: DatasetInfo
    cases: tuple[TrainingCase, ...]
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def first_files(self) -> tuple[Path, ...]:
        """Images and labels of the first case: who sees them sees the others."""
        return tuple(path for case in self.cases[:1] for path in (*case.images, case.label))


@dataclass(frozen=True)
class FileProblem:
    """A file that is missing, superfluous or misnamed.

    Parameters
    ----------
    where : str
        Case or file.
    text : str
        What is wrong and what to do.
    fatal : bool
        False if training works in spite of it.
    case : bool
        Whether ``where`` is a case, so that dropping it would help.
    """

    where: str
    text: str
    fatal: bool = True
    case: bool = False


def open_dataset(folder: Path) -> RawDataset:
    """Open a raw dataset and find its training cases; no image is read.

    Raises
    ------
    DatasetError
        If dataset.json, images or labels are missing; all missing files at once.
    """
    dataset, problems = survey(folder)
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        listed = "\n  ".join(f"{problem.where}: {problem.text}" for problem in fatal[:_SHOWN])
        more = f"\n  ... and {len(fatal) - _SHOWN} more" if len(fatal) > _SHOWN else ""
        raise DatasetError(f"{folder.name} is not complete:\n  {listed}{more}")
    if not dataset.cases:
        raise DatasetError(
            f"{folder} has no training cases: 'dataset' in its dataset.json lists none. List them there, or remove "
            "that key to use the files in imagesTr and labelsTr."
        )
    return dataset


def read_info(folder: Path) -> DatasetInfo:
    """Return the dataset.json of a folder; raises DatasetError where there is none."""
    path = folder / "dataset.json"
    if not path.is_file():
        raise DatasetError(
            f"{folder} is not a dataset: it has no dataset.json.",
            shell="Name the folder that holds it, or write one (generate_dataset_json).",
            window="Choose the folder that holds it, or press 'Write dataset.json…' in the Training cases dock.",
        )
    return DatasetInfo.read(path)


def survey(folder: Path, info: DatasetInfo | None = None) -> tuple[RawDataset, list[FileProblem]]:
    """Find the cases of a raw dataset and everything that is wrong with its files; no image is read.

    Parameters
    ----------
    folder : Path
        Of the dataset.
    info : DatasetInfo, optional
        What its dataset.json will say, where it is not written yet.

    Returns
    -------
    dataset : RawDataset
        With the cases that are complete.
    problems : list of FileProblem
        In the order of the cases.

    Raises
    ------
    DatasetError
        If there is no dataset.json or it cannot be read.
    """
    info = info or read_info(folder)
    listed = info.raw.get("dataset")
    left_out: tuple[str, ...] = ()
    if isinstance(listed, dict):
        cases, problems = _listed(folder, listed)
    else:
        cases, problems = _found(folder, info)
        left_out = _left_out(folder / "imagesTr", info.file_ending)
        text = f"it is not a case: images of this dataset are named CASE_0000{info.file_ending} ('file_ending')"
        problems += [FileProblem(f"imagesTr/{shown(name)}", text, fatal=False) for name in left_out]
    return RawDataset(folder, info, tuple(cases), left_out), problems


def _left_out(images: Path, ending: str) -> tuple[str, ...]:
    """Return names of images that are passed over, and of folders that hold images."""
    found = []
    for path in sorted(images.iterdir()) if images.is_dir() else ():
        inside = [p.name for p in path.iterdir()] if path.is_dir() else []
        if path.name.startswith(".") or path.name.endswith(ending):
            continue
        if any(name.lower().endswith(ENDINGS) for name in (path.name, *inside)):
            found.append(f"{path.name}/" if path.is_dir() else path.name)
    return tuple(found)


def left_out_notes(dataset: RawDataset) -> Iterator[Note]:
    """Yield a warning that counts and names the images that are no cases."""
    if dataset.left_out:
        yield Note(
            level="warning",
            text=f"In {dataset.name}/imagesTr, what is not a case was left out: {some(dataset.left_out, _SHOWN)}. "
            f"Images of this dataset are named CASE_0000{dataset.info.file_ending}.",
        )


def _found(folder: Path, info: DatasetInfo) -> tuple[list[TrainingCase], list[FileProblem]]:
    for name in ("imagesTr", "labelsTr"):
        if not (folder / name).is_dir():
            return [], [FileProblem(folder.name, f"the folder {name} is missing")]
    ending = info.file_ending
    images, problems = _images(folder / "imagesTr", ending)
    labels = {
        path.name[: -len(ending)]: path
        for path in sorted((folder / "labelsTr").iterdir())
        if path.name.endswith(ending) and not path.name.startswith(".")
    }
    channels = len(info.channel_names)
    one_each = all(len(files) == 1 for files in images.values())
    cases = []
    for name, files in sorted(images.items()):
        gaps = sorted(set(range(max(channels, max(files) + 1))) - set(files))
        # A picture with several colours is one file; how many channels it has shows when it is read.
        if gaps and not (one_each and 0 in files):
            text = f"{', '.join(f'{name}_{c:04d}{ending}' for c in gaps)} is missing; the dataset has "
            problems.append(FileProblem(name, f"{text}{counted(channels, 'channel')}", case=True))
        elif name not in labels:
            problems.append(FileProblem(name, f"labelsTr/{name}{ending} is missing", case=True))
        elif not is_plain(name):
            problems.append(FileProblem(shown(name), "this case name cannot be part of a file name"))
        elif name.endswith("_seg"):
            problems.append(FileProblem(name, _MARKED))
        else:
            cases.append(
                TrainingCase(name, tuple(files[c] for c in sorted(files)), folder / "labelsTr" / f"{name}{ending}")
            )
    for name in sorted(set(labels) - set(images)):
        problems.append(FileProblem(f"labelsTr/{shown(name + ending)}", "this label file has no image", fatal=False))
    if not images:
        problems.append(FileProblem("imagesTr", f"no file ends in {ending}, the 'file_ending' of dataset.json"))
    return cases, problems


def _images(folder: Path, ending: str) -> tuple[dict[str, dict[int, Path]], list[FileProblem]]:
    """Return the channel files of each case, and the files whose names fit no case."""
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}", re.DOTALL)
    grouped: dict[str, dict[int, Path]] = defaultdict(dict)
    problems = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        match = pattern.fullmatch(path.name)
        if match is not None:
            grouped[match[1]][int(match[2])] = path
        elif path.name.endswith(ending):
            problems.append(
                FileProblem(f"imagesTr/{shown(path.name)}", f"the name must end in _0000{ending} (the channel number)")
            )
    return grouped, problems


def _listed(folder: Path, listed: Mapping[str, Any]) -> tuple[list[TrainingCase], list[FileProblem]]:
    def resolve(text: str) -> Path:
        path = Path(os.path.expandvars(text))
        return path if path.is_absolute() else (folder / path).absolute()

    cases, problems = [], []
    for name, entry in listed.items():
        if not is_plain(name):
            problems.append(FileProblem(shown(name), "this case name cannot be part of a file name"))
            continue
        if name.endswith("_seg"):
            problems.append(FileProblem(name, _MARKED))
            continue
        try:
            if isinstance(entry["images"], str) or not entry["images"]:
                raise TypeError
            case = TrainingCase(name, tuple(resolve(image) for image in entry["images"]), resolve(entry["label"]))
        except (KeyError, TypeError) as error:
            raise DatasetError(
                f"dataset.json, key 'dataset': the entry of {name} must hold 'images' (a list of paths) and 'label'."
            ) from error
        missing = [str(path) for path in (*case.images, case.label) if not path.is_file()]
        if missing:
            problems.append(FileProblem(name, f"missing {', '.join(missing)}", case=True))
        else:
            cases.append(case)
    return cases, problems


def dataset_json(
    channel_names: Sequence[str],
    labels: Mapping[str, int | Sequence[int]],
    num_training: int,
    file_ending: str,
    *,
    regions_class_order: Sequence[int] | None = None,
    reader: str | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Return the content of a dataset.json, checked.

    Parameters
    ----------
    channel_names : sequence of str
        In channel order; "CT" selects CT normalisation.
    labels : mapping of str to int or sequence of int
        Must hold "background": 0; sequences are regions.
    num_training : int
        Number of training cases.
    file_ending : str
        With the leading dot.
    regions_class_order : sequence of int, optional
        Needed with regions: the label painted for each.
    reader : str, optional
        ``overwrite_image_reader_writer``.
    **extra
        More entries: name, description, reference, licence, ...

    Raises
    ------
    DatasetError
        If the labels break a rule.
    """
    content: dict[str, Any] = {
        "channel_names": {str(i): name for i, name in enumerate(channel_names)},
        "labels": {
            name: int(value) if isinstance(value, int) else [int(v) for v in value] for name, value in labels.items()
        },
        "numTraining": int(num_training),
        "file_ending": file_ending,
    }
    if regions_class_order is not None:
        content["regions_class_order"] = [int(v) for v in regions_class_order]
    if reader is not None:
        content["overwrite_image_reader_writer"] = reader
    content |= extra
    DatasetInfo.parse(content)
    return content


def generate_dataset_json(
    folder: Path,
    channel_names: Sequence[str],
    labels: Mapping[str, int | Sequence[int]],
    num_training: int,
    file_ending: str,
    **options: Any,
) -> Path:
    """Write dataset.json into a raw dataset folder; arguments and errors as :func:`dataset_json`."""
    path = folder / "dataset.json"
    write_json(path, dataset_json(channel_names, labels, num_training, file_ending, **options))
    return path


def reader_of(dataset: RawDataset) -> str:
    """Return nnU-Net's name for the reader of a dataset: dataset.json's, else by the first image."""
    return adapter_for(dataset.cases[0].images[0], dataset.info.reader).name


def said(info: DatasetInfo, cases: Sequence[str], chosen: Sequence[str], looked: Sequence[str]) -> dict[str, list[str]]:
    """Return what dataset.json says of its cases once something is said of some; without classes, all were looked for.

    Raises
    ------
    DatasetError
        If the dataset is of numbered objects, whose classes are derived.
    """
    if ObjectScheme.of(info) is not None:
        raise DatasetError(
            "The classes of a dataset of numbered objects are derived from them: every kind is looked for in each case."
        )
    own = info.labels.classes
    found = {case: list(info.annotated[case]) for case in cases if case in info.annotated}
    found |= {case: list(looked) for case in chosen}
    return {case: names for case, names in sorted(found.items()) if names and set(names) != set(own)}


def said_of_cases(
    info: DatasetInfo, earlier: Sequence[str], new: Sequence[str], annotated: Sequence[str], labels: Mapping[str, int]
) -> dict[str, Any]:
    """Return the entries of dataset.json that change where cases are added in which only some classes were looked for.

    Parameters
    ----------
    info : DatasetInfo
        Before.
    earlier, new : sequence of str
        Names of the cases there are, and of those that come.
    annotated : sequence of str
        The classes that were looked for in the new ones; all where there is none.
    labels : mapping of str to int
        The classes of the new cases. Those that the dataset lacks are added, and are unknown in its earlier cases.
    """
    if not annotated:
        return {ANNOTATED: said(info, earlier, new, ())} if info.annotated else {}
    added = {name: value for name, value in labels.items() if name in annotated and name not in info.labels.labels}
    known = {case: info.annotated.get(case, info.labels.classes) for case in earlier if added or case in info.annotated}
    later = DatasetInfo.parse({**info.raw, "labels": {**info.raw["labels"], **added}, ANNOTATED: known})
    looked = looked_for(annotated, later.labels, "--annotated")
    return {"labels": later.raw["labels"], ANNOTATED: said(later, [*earlier, *new], new, looked)}


def said_of_renamed(info: DatasetInfo, names: Mapping[str, str], labels: Collection[str]) -> dict[str, list[str]]:
    """Return which classes were looked for after classes were renamed, joined or removed.

    A class that several became was looked for where all of them were.

    Parameters
    ----------
    info : DatasetInfo
        Before.
    names : mapping of str to str
        New names of classes; others stay.
    labels : collection of str
        The names there are afterwards.
    """
    target = {name: names.get(name, name) for name in info.labels.classes}
    found = {}
    for case, looked in info.annotated.items():
        unknown = {target[name] for name in info.labels.classes if name not in looked}
        known = [name for name in labels if name in target.values() and name not in unknown]
        if unknown & set(labels) - {BACKGROUND, IGNORE}:
            found[case] = [name for name in known if name not in (BACKGROUND, IGNORE)]
    return found
