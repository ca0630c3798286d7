"""dataset.json: channels, labels, regions, ignore label, file ending (nnU-Net's documentation/dataset_format.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_nnunet.errors import DatasetError, some
from napari_nnunet.schema.json_text import first_problem, json_object, read_text, shortened
from napari_nnunet.schema.names import require_plain

Region = int | tuple[int, ...]

BACKGROUND = "background"
IGNORE = "ignore"
#: Classes that were looked for, of the cases in which not all were; nnU-Net passes this key over.
ANNOTATED = "napari_nnunet_annotated"
_LARGEST_LABEL = 2**32 - 1


class LabelScheme(BaseModel):
    """What the values of a segmentation mean and which network head belongs to which.

    Parameters
    ----------
    labels : dict of str to int or tuple of int
        Name to value, or to the values that make up a region. The order counts: it is the order of region heads.
    regions_class_order : tuple of int, optional
        Label value painted for each region head; later ones overwrite earlier ones.

    Raises
    ------
    DatasetError
        If the background is missing, the ignore label is not the highest, or regions come without a class order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: dict[str, Region]
    regions_class_order: tuple[int, ...] | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Check the rules that hold between the fields."""
        if self.labels.get(BACKGROUND) != 0 or isinstance(self.labels.get(BACKGROUND), tuple):
            raise DatasetError(
                f"dataset.json: the labels {self.labels} lack 'background': 0. Add it; every voxel needs a class."
            )
        if IGNORE in self.labels:
            ignore = self.labels[IGNORE]
            if isinstance(ignore, tuple) or ignore != max(self.all_labels) + 1:
                raise DatasetError(
                    f"dataset.json: the label 'ignore' is {ignore}, but it must be the single value "
                    f"{max(self.all_labels) + 1}, one above the highest other label."
                )
        if self.has_regions and len(self.regions_class_order or ()) != len(self.regions):
            raise DatasetError(
                f"dataset.json: {len(self.regions)} regions need as many entries in 'regions_class_order', "
                f"which is {self.regions_class_order}. List the label value to write for each region."
            )

    @property
    def has_regions(self) -> bool:
        """True if at least one entry combines several label values."""
        return any(isinstance(value, tuple) and len(value) > 1 for value in self.labels.values())

    @property
    def ignore_label(self) -> int | None:
        """Value of voxels nobody annotated, if the dataset has one."""
        value = self.labels.get(IGNORE)
        return value if isinstance(value, int) else None

    @property
    def all_labels(self) -> tuple[int, ...]:
        """All label values but the ignore label, ascending."""
        values: set[int] = set()
        for name, value in self.labels.items():
            if name != IGNORE:
                values.update(value if isinstance(value, tuple) else (value,))
        return tuple(sorted(values))

    @property
    def out_of_turn(self) -> str | None:
        """What is wrong with label values that are not 0, 1, 2, ..., in words."""
        values = [*self.all_labels, *([] if self.ignore_label is None else [self.ignore_label])]
        if values == list(range(len(values))):
            return None
        return f"the label values are {some(values, 8)}; they must be consecutive: 0 to {len(values) - 1}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes and regions but background and ignore."""
        return tuple(name for name in self.labels if name not in (BACKGROUND, IGNORE))

    @property
    def foreground_labels(self) -> tuple[int, ...]:
        """All label values but background and ignore, ascending."""
        return tuple(value for value in self.all_labels if value != 0)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Foreground regions in head order; without ignore and background."""
        return tuple(
            value
            for name, value in self.labels.items()
            if name != IGNORE and not (value == 0 or (isinstance(value, tuple) and set(value) == {0}))
        )

    @property
    def meanings(self) -> dict[str, tuple[int, ...]]:
        """The values of each class or region, ascending, however they are written; without ignore and background."""
        found = {n: tuple(sorted({v} if isinstance(v, int) else set(v))) for n, v in self.labels.items() if n != IGNORE}
        return {name: values for name, values in found.items() if values != (0,)}

    @property
    def heads(self) -> int:
        """Number of network outputs."""
        return len(self.regions) if self.has_regions else len(self.all_labels)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The class or region of each network head."""
        if self.has_regions:
            return tuple(name for name, value in self.labels.items() if value in self.regions and name != IGNORE)
        return tuple(self.names.get(value, str(value)) for value in self.all_labels)

    @property
    def names(self) -> dict[int, str]:
        """Value to name, for everything a predicted segmentation can hold.

        A region model paints ``regions_class_order[i]`` where region ``i`` (and none painted later) holds, so that
        value gets the name of region ``i``.
        """
        if self.has_regions and self.regions_class_order is not None:
            region_names = [name for name, value in self.labels.items() if value in self.regions and name != IGNORE]
            return {0: BACKGROUND, **dict(zip(self.regions_class_order, region_names, strict=True))}
        named = {}
        for name, value in self.labels.items():
            if name != IGNORE:
                named[value if isinstance(value, int) else value[0]] = name
        return dict(sorted(named.items()))

    @property
    def dtype(self) -> str:
        """Smallest unsigned type of a predicted segmentation."""
        return "uint8" if len(self.foreground_labels) < 255 else "uint16"


class DatasetInfo(BaseModel):
    """The content of dataset.json that matters; ``raw`` is the file's own dictionary, for copying it along.

    Parameters
    ----------
    channel_names : tuple of str
        In channel order; the legacy key ``modality`` is read as well.
    labels : LabelScheme
        Classes, regions and the ignore label.
    file_ending : str
        With the leading dot, ".nii.gz" for instance.
    num_training : int, optional
        ``numTraining``.
    reader : str, optional
        ``overwrite_image_reader_writer``.
    name : str
        Free text.
    annotated : mapping of str to tuple of str
        The classes that were looked for, of the cases in which not all were.
    raw : mapping
        The whole file, with keys that only others know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel_names: tuple[str, ...]
    labels: LabelScheme
    file_ending: str
    num_training: int | None = None
    reader: str | None = None
    name: str = ""
    annotated: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    raw: Mapping[str, Any] = Field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, content: Mapping[str, Any], *, where: str = "dataset.json") -> DatasetInfo:
        """Read the dictionary of a dataset.json.

        Parameters
        ----------
        content : mapping
            The parsed JSON.
        where : str
            Named in errors.

        Raises
        ------
        DatasetError
            If channels, labels or file ending are missing or wrong.
        """
        if not isinstance(content, Mapping):
            raise DatasetError(f"{where} must hold a JSON object, not {type(content).__name__}.")
        channels = content.get("channel_names", content.get("modality"))
        if not isinstance(channels, Mapping) or not channels:
            found = "is missing" if not channels else f"is {shortened(channels)}"
            raise DatasetError(f"{where}: 'channel_names' {found}; expected an object such as {{'0': 'CT'}}.")
        if not isinstance(content.get("labels"), Mapping):
            found = "is missing" if content.get("labels") is None else f"is {shortened(content['labels'])}"
            raise DatasetError(f"{where}: 'labels' {found}; expected {{'background': 0, 'name': 1, ...}}.")
        _refuse_numbers_first(content["labels"], where)
        # Early releases of nnU-Net v2 knew NIfTI only and did not write the ending.
        ending = content.get("file_ending", ".nii.gz")
        if not isinstance(ending, str):
            raise DatasetError(f"{where}: 'file_ending' is {shortened(ending)}; it must be a text such as '.nii.gz'.")
        require_plain(ending, f"{where}: 'file_ending'")
        if not ending.startswith("."):
            raise DatasetError(
                f"{where}: 'file_ending' is {shortened(ending)}; it must begin with a dot, as '.nii.gz' does."
            )
        reader = content.get("overwrite_image_reader_writer")
        try:
            scheme = LabelScheme(
                labels={str(name): _region(name, value, where) for name, value in content["labels"].items()},
                regions_class_order=_order(content.get("regions_class_order"), where),
            )
            return cls(
                channel_names=tuple(_channel(key, name, where) for key, name in channels.items()),
                labels=scheme,
                file_ending=ending,
                num_training=_count(content.get("numTraining"), where),
                reader=None if reader in (None, "None") else str(reader),
                name=str(content.get("name", "")),
                annotated=read_annotated(content, scheme, where),
                raw=content,
            )
        except ValidationError as error:
            raise DatasetError(f"{where} cannot be read: {first_problem(error)}") from error

    @classmethod
    def parse_json(cls, text: str, *, where: str = "dataset.json") -> DatasetInfo:
        """Read the text of a dataset.json; raises DatasetError if it is no JSON object."""
        return cls.parse(json_object(text, where, DatasetError), where=where)

    @classmethod
    def read(cls, path: Path) -> DatasetInfo:
        """Read a dataset.json; raises DatasetError if it is not there or not nnU-Net's."""
        return cls.parse_json(read_text(path, DatasetError), where=str(path))


def _refuse_numbers_first(labels: Mapping[Any, Any], where: str) -> None:
    """Raise DatasetError for the form that nnU-Net v1 and the Decathlon write: {"0": "background", "1": "liver"}."""
    if labels and all(str(key).isdecimal() and isinstance(name, str) for key, name in labels.items()):
        key, name = next(iter(labels.items()))
        raise DatasetError(
            f"{where}: 'labels' has numbers before names ('{key}': {shortened(name)}), as nnU-Net v1 and the Medical "
            f"Segmentation Decathlon write them; here names come first ({{{shortened(name)}: {key}}}).",
            shell="Convert the dataset: convert_old_nnUNet_dataset, or convert_MSD_dataset.",
            window="Convert the dataset in a shell (napari-nnunet convert_old_nnUNet_dataset, or convert_MSD_dataset).",
        )


def _channel(key: Any, name: Any, where: str) -> str:
    if not isinstance(name, str | int | float) or isinstance(name, bool):
        raise DatasetError(f"{where}: 'channel_names': '{key}' is {shortened(name)}; a channel's name is a text.")
    return str(name)


def _region(name: Any, value: Any, where: str) -> Region:
    if isinstance(value, list | tuple) and value:
        numbers = [_whole(v) for v in value]
        if None not in numbers:
            return tuple(n for n in numbers if n is not None)
    number = _whole(value)
    if number is None:
        raise DatasetError(
            f"{where}: 'labels': '{name}' is {shortened(value)}; it must be an integer from 0 to "
            f"{_LARGEST_LABEL:,}, or a list of such integers for a region."
        )
    return number


def _whole(value: Any) -> int | None:
    """Return a label value, also one written as text; None for what is none."""
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else text
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 12 and int(text) <= _LARGEST_LABEL else None


def _order(value: Any, where: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    numbers = [_whole(v) for v in value] if isinstance(value, list | tuple) else [None]
    if None in numbers:
        raise DatasetError(
            f"{where}: 'regions_class_order' is {shortened(value)}; it must be a list with one label value for each "
            "region, such as [1, 2]: the value that is painted for it."
        )
    return tuple(n for n in numbers if n is not None)


def _count(value: Any, where: str) -> int | None:
    if value is None:
        return None
    number = _whole(value)
    if number is None:
        raise DatasetError(
            f"{where}: 'numTraining' is {shortened(value)}; it must be the number of training cases, such as 20."
        )
    return number


def read_annotated(content: Mapping[str, Any], scheme: LabelScheme, where: str) -> dict[str, tuple[str, ...]]:
    """Return the classes that were looked for, of the cases in which not all were.

    Parameters
    ----------
    content : mapping
        Of dataset.json.
    scheme : LabelScheme
        Its labels.
    where : str
        Named in errors.

    Raises
    ------
    DatasetError
        If the key is no object of lists of the dataset's own classes, or a case has none.
    """
    given = content.get(ANNOTATED, {})
    if not isinstance(given, Mapping) or not all(isinstance(names, list | tuple) for names in given.values()):
        raise DatasetError(
            f"{where}: '{ANNOTATED}' must name the classes that were looked for in a case, such as "
            f"{{'case_1': ['{next(iter(scheme.classes), 'liver')}']}}."
        )
    return {str(case): looked_for(names, scheme, f"{where}: '{ANNOTATED}': '{case}'") for case, names in given.items()}


def looked_for(names: Any, scheme: LabelScheme, what: str) -> tuple[str, ...]:
    """Return the names of classes without background and ignore, in the dataset's order.

    Raises
    ------
    DatasetError
        If one is unknown, or none is left; ``what`` begins the sentence.
    """
    own = scheme.classes
    strange = [name for name in names if name not in own and name not in (BACKGROUND, IGNORE)]
    if strange:
        raise DatasetError(f"{what} names the class {strange[0]!r}; the dataset has {', '.join(own)}.")
    found = tuple(name for name in own if name in names)
    if not found:
        raise DatasetError(
            f"{what} names no class, so that nothing can be learnt from it. Name at least one of {', '.join(own)}, or "
            "leave the case out of the dataset."
        )
    return found


def unknown_regions(info: DatasetInfo, case: str) -> frozenset[Region]:
    """Return the labels (or regions) that nobody looked for in a case."""
    looked = info.annotated.get(case)
    if looked is None:
        return frozenset()
    return frozenset(info.labels.labels[name] for name in info.labels.classes if name not in looked)


def unlooked_values(info: DatasetInfo, case: str, values: Iterable[int]) -> list[int]:
    """Return those values of a case's labels that belong to classes nobody looked for in it.

    A value that several regions share belongs to those that were looked for.
    """
    unknown = unknown_regions(info, case)
    if not unknown:
        return []
    regions = [
        (value, value in unknown) for name, value in info.labels.labels.items() if name not in (BACKGROUND, IGNORE)
    ]

    found = []
    for value in values:
        lost = [gone for region, gone in regions if value in (region if isinstance(region, tuple) else (region,))]
        if lost and all(lost):
            found.append(int(value))
    return found


def unlooked_in_words(values: Sequence[int], info: DatasetInfo, case: str) -> str:
    """Return what is wrong with labels that show a class of which it is said that nobody looked for it."""
    listed = some([f"{value} ({info.labels.names.get(value, 'no name')})" for value in values])
    looked = ", ".join(info.annotated[case])
    return f"it contains {listed}, but by '{ANNOTATED}' in dataset.json only {looked} was looked for"
