"""Which blocks of a large image are finished, so that a killed job continues where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le, Len
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_nnunet.errors import ImageError, ResourceError, SettingsError
from napari_nnunet.formats.atomic import write_error
from napari_nnunet.formats.json_lines import append_lines, read_lines
from napari_nnunet.schema.json_text import first_problem

NAME = ".napari-nnunet.jsonl"
_Count = Annotated[int, Ge(0), Le(1 << 60)]
_Side = Annotated[int, Ge(1), Le(1 << 40)]
_Values = Annotated[tuple[float, ...], Len(1)]  # infinite where float32 cannot hold a value
_Range = tuple[_Count, _Count]
_UNTELLING = ("sha256", "folder")  # tell programs what people see by other words
_WANTED = {True: "numbered objects", False: "classes"}
_LONGEST = 60  # characters of a value in a sentence


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ChannelEntry(_Entry):
    """What was found of a channel; see :class:`~napari_nnunet.engine.large.survey.ChannelFacts`."""

    mean: float
    std: float
    low: _Values
    high: _Values


class FactsEntry(_Entry):
    """What was found of a time point; see :class:`~napari_nnunet.engine.large.survey.ImageFacts`."""

    time: _Count
    box: tuple[_Range, _Range, _Range]
    content: _Count
    invalid: _Count
    channels: tuple[ChannelEntry, ...]
    digest: str = Field(default="", max_length=64)  # of the voxels, where no file tells whether they are the same


class ContentEntry(_Entry):
    """The intensities of a time point's content alone, which is kept in the unfinished result."""

    time: _Count
    channels: tuple[ChannelEntry, ...]


class ArithmeticEntry(_Entry):
    """How all blocks are computed."""

    device: str = Field(max_length=20)
    backend: str = Field(max_length=20)
    precision: str = Field(max_length=20)


class LayoutEntry(_Entry):
    """The size of blocks (z, y, x)."""

    block: tuple[_Side, _Side, _Side]


class BlockEntry(_Entry):
    """A finished block: time point and number along each axis, and its voxels of each label value."""

    at: tuple[_Count, _Count, _Count, _Count]
    counts: tuple[_Count, ...]


class ChangedEntry(_Entry):
    """The image was changed while blocks were computed: these do not belong together, whatever it is later."""

    name: str = Field(max_length=1000)


class OtherWorkError(SettingsError):
    """What was begun in a place is another work than what is to be continued."""


def other_work(known: Mapping[str, Any], work: Mapping[str, Any]) -> str:
    """Return in what a work that was noted differs from another one, as words; empty where it is the same."""
    now = json.loads(json.dumps(work))
    keys = sorted(key for key in {**known, **now} if known.get(key) != now.get(key))
    return " and ".join(_difference(key, known.get(key), now.get(key)) for key in keys)


def _difference(key: str, before: Any, now: Any) -> str:
    """Return in what one entry of two works differs, such as "other settings (step 0.75, now 0.5)"."""
    if key == "objects":
        kinds = f"{_WANTED[bool(before)]} (now {_WANTED[bool(now)]})"
        return "other rules by which objects are found" if before and now else kinds
    what = "other settings" if key == "settings" else f"another {key}"
    if not isinstance(before, dict) or not isinstance(now, dict):
        return what
    differing = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    telling = [name for name in differing if name not in _UNTELLING] or [n for n in differing if n == "folder"]
    if key in telling:  # a model of another name has other plans and folds, too
        telling = [key]
    told = [f"{name} {_said(before.get(name))}, now {_said(now.get(name))}" for name in telling]
    return f"{what} ({'; '.join(told) or 'its weights are others'})"


def _said(value: Any) -> str:
    """Return a value of a work as people write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "none"
    if isinstance(value, list):
        return (" x " if value and isinstance(value[0], int) else ", ").join(map(_said, value))[:_LONGEST]
    return str(value)[:_LONGEST]


E = TypeVar("E", bound=_Entry)
#: What lines are called.
_KEYS: dict[type[_Entry], str] = {
    FactsEntry: "facts",
    ContentEntry: "content",
    ArithmeticEntry: "arithmetic",
    LayoutEntry: "layout",
    BlockEntry: "block",
    ChangedEntry: "changed",
}


class BlockJournal:
    """A file of lines in an unfinished result: what is computed, what was found out of the image, and finished blocks.

    Parameters
    ----------
    folder : Path
        The unfinished result.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    @property
    def folder(self) -> Path:
        """The unfinished result."""
        return self._path.parent

    def begin(self, work: Mapping[str, Any]) -> None:
        """Note what is computed: model, settings, image."""
        append_lines(self._path, [json.dumps({"work": dict(work)})])

    def note(self, entry: _Entry) -> None:
        """Note something that was found out, or that a block is finished."""
        append_lines(self._path, [json.dumps({_KEYS[type(entry)]: entry.model_dump()})])

    def all(self, kind: type[E]) -> list[E]:
        """Return what was noted of a kind; lines that a kill tore are passed over.

        Raises
        ------
        SettingsError
            If a line holds what no program wrote.
        """
        key = _KEYS[kind]
        try:
            return [kind.model_validate_json(json.dumps(content)) for content in self._contents(key)]
        except ValidationError as error:
            raise self.damaged(f"in a line '{key}', {first_problem(error)}") from error

    def damaged(self, problem: str) -> SettingsError:
        """Return the sentence for what cannot be continued."""
        return SettingsError(f"{self._path} is damaged: {problem} Delete {self._path.parent} and begin again.")

    def require_same(self, work: Mapping[str, Any]) -> None:
        """Raise SettingsError if something else was begun here, saying what differs."""
        known = next((content for content in self._contents("work") if isinstance(content, dict)), None)
        if known is None:
            raise SettingsError(
                f"{self._path.parent} is not an unfinished result of this program. Choose another name, or delete it."
            )
        differs = other_work(known, work)
        if differs:
            raise OtherWorkError(
                f"{self._path.parent} was begun with {differs}. Continue with the same, or delete it to begin again.",
            )

    def changed(self, name: str) -> ImageError:
        """Note that an image changed while it was read, if anything was begun; returns the sentence."""
        if self._path.parent.is_dir():
            self.note(ChangedEntry(name=name[:1000]))
        return ImageError(
            f"{name} was changed while it was read, so that its parts do not belong together. Delete "
            f"{self._path.parent}, and begin again when nothing writes to the image any more."
        )

    def require_of_one_image(self) -> None:
        """Raise SettingsError if the image was changed while blocks were computed."""
        for entry in self.all(ChangedEntry):
            raise SettingsError(
                f"{entry.name} was changed while {self._path.parent} was computed, so that its parts do not belong "
                f"together, whatever {entry.name} is now. Delete {self._path.parent} to begin again."
            )

    def remove(self) -> None:
        """Delete the file: the result is complete."""
        self._path.unlink(missing_ok=True)

    def _contents(self, key: str) -> Iterator[Any]:
        return (entry[key] for entry in read_lines(self._path) if key in entry)


class Writing:
    """Turns what the system says of a write into a sentence.

    Parameters
    ----------
    path : Path
        The unfinished result.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            told = write_error(self._path, error)
            raise ResourceError(
                f"{told.message} The blocks that are finished are kept.", shell="Continue with --continue."
            ) from error
