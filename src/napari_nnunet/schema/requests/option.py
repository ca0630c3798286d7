"""What a request's field says of itself, once: title, help, limits, and how a shell writes it.

From it come a verb's flags and its ``--help``, the arguments of a detached process, the keywords and the docstring of
the Python door, the rows of a dock's form, and docs/cli.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.names import Fold, parse_fold

R = TypeVar("R", bound="Request")


@dataclass(frozen=True)
class Flag:
    """How a shell writes a field.

    Parameters
    ----------
    names : tuple of str
        Such as ``("--continue_prediction", "--c")``; one name without a dash is a position.
    metavar : str, optional
        Placeholder of the value.
    otherwise : str, optional
        What counts if the flag is missing, in words; the default itself if not given.
    sets : object
        For switches: what the field becomes if the flag is given.
    bare : object, optional
        What the field becomes if the flag is given without a value.
    each : bool
        A shell may name several; there is one request for each.
    reads : callable, optional
        Turns the word, or the list of words, into the value.
    choices : tuple, optional
        Where the type does not tell them.
    axes : tuple of str
        Placeholders of a fixed number of values.
    many : bool
        Several words where the type does not tell so; ``reads`` makes one value of them.
    once : bool
        The words are one value, such as a size along each axis: a shell may not add others by a second flag.
    shell : str, optional
        Instead of the description, where a flag turns the field's meaning around.
    """

    names: tuple[str, ...]
    metavar: str | None = None
    otherwise: str | None = None
    sets: Any = True
    bare: Any = None
    each: bool = False
    reads: Callable[[Any], Any] | None = None
    choices: tuple[str, ...] | None = None
    axes: tuple[str, ...] = ()
    many: bool = False
    once: bool = False
    shell: str | None = None

    @property
    def positional(self) -> bool:
        """Whether the field is written without a flag."""
        return not self.names[0].startswith("-")


_LIMITS = ("ge", "gt", "le", "lt", "min_length")


def option(title: str, flag: str, text: str, *, default: Any = ..., row: bool = False, **how: Any) -> Any:
    """Describe a field of a request, or, within ``Annotated``, of several.

    Parameters
    ----------
    title : str
        Of the row in a form.
    flag : str
        As a usage line has it: ``"--time_budget --time-budget TIME"``, a position as ``"DATASET"``; empty where a shell
        does not offer the field.
    text : str
        A sentence: the help of the flag, the tool tip of the row, the docstring of the keyword.
    default : object
        What counts where nothing is said; a field without one is required.
    row : bool
        Whether the dock that makes such requests has a row for it among its further settings.
    **how
        Limits of the value (``ge``, ``gt``, ``le``, ``lt``, ``min_length``), and further fields of :class:`Flag`.
    """
    names = tuple(word for word in flag.split() if word.startswith("-"))
    rest = [word for word in flag.split() if not word.startswith("-")]
    limits = {name: how.pop(name) for name in _LIMITS if name in how}
    made = Flag(names or tuple(rest), rest[0] if rest else None, **how) if flag else None
    extra: Any = {"flag": made, "row": row}
    return Field(default, title=title, description=text, json_schema_extra=extra, **limits)


#: Beside the description of a field that several requests share: the dock that makes this one has a row for it.
ROW = Field(json_schema_extra={"row": True})


def flag_of(field: FieldInfo) -> Flag | None:
    """Return how a shell writes a field, None where it does not."""
    extra = field.json_schema_extra
    found = extra.get("flag") if isinstance(extra, dict) else None
    return found if isinstance(found, Flag) else None


def rows_of(kind: type[BaseModel]) -> tuple[str, ...]:
    """Return the fields that a dock has rows for."""
    extras = {name: field.json_schema_extra for name, field in kind.model_fields.items()}
    return tuple(name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("row"))


class Request(BaseModel):
    """What is asked of a job: frozen, checked when it is made, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Return a request.

        Raises
        ------
        SettingsError
            If a value is not allowed; names the setting and the value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _in_words(error, cls) from error

    @classmethod
    def like(cls, other: Request, **values: Any) -> Self:
        """Return a request with what was given in another one, and with values that win over it."""
        return cls.model_validate({**other.model_dump(exclude_unset=True), **values})

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed and everything checked again; what was given stays given."""
        return self.like(self, **changes)

    def only(self, kind: type[R]) -> R:
        """Return the part of this request that another kind of request has."""
        return kind.model_validate(self.model_dump(include=set(kind.model_fields), exclude_unset=True))

    @classmethod
    def flags(cls) -> Iterator[tuple[str, FieldInfo, Flag]]:
        """Return the fields a shell offers: positions first, then what is required, then the rest."""
        found = [(name, field, flag) for name, field in cls.model_fields.items() if (flag := flag_of(field))]
        yield from sorted(found, key=lambda entry: (not entry[2].positional, not entry[1].is_required()))


def _in_words(error: ValidationError, kind: type[Request]) -> SettingsError:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return SettingsError(f"The setting '{name}' is missing.")
    if first["type"] == "extra_forbidden":
        return SettingsError(f"There is no setting '{name}'. Known: {', '.join(kind.model_fields)}.")
    field = kind.model_fields.get(str(first["loc"][0])) if first["loc"] else None
    title = (field.title if field is not None else None) or name
    flag = flag_of(field) if field is not None else None
    typed = f" ({flag.names[0]})" if flag is not None and flag.names[0].startswith("-") else ""
    why = f"cannot be {first['input']!r}: {first['msg']}."
    return SettingsError("", shell=f"The setting '{name}'{typed} {why}", window=f"The setting '{title}' {why}")


class GridSettings(Request):
    """What is done with the channels of a case, or with labels and their image, that do not lie on one grid."""

    resample_channels: bool = option(
        "Resample channels",
        "--resample_channels --resample-channels",
        "Interpolate channels that lie on another grid than a case's first one; without it such cases are refused.",
        default=False,
    )
    ignore_geometry: bool = option(
        "Ignore places",
        "--ignore_geometry --ignore-geometry",
        "Use voxels as they are stored, whatever the headers say about position.",
        default=False,
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.ignore_geometry and self.resample_channels:
            raise SettingsError(
                "Voxels are either taken as they lie or interpolated onto one grid, not both.",
                shell="Give either --ignore_geometry or --resample_channels.",
            )
        return self

    @property
    def apart(self) -> Literal["refuse", "resample", "ignore"]:
        """What is done with what lies apart."""
        return "ignore" if self.ignore_geometry else "resample" if self.resample_channels else "refuse"


Workers = Annotated[
    int, Ge(0), option("Processes", "-np N", "Processes at the same time, at most.", otherwise="all cores")
]
VoxelSize = Annotated[
    tuple[float, ...] | None,
    option(
        "Voxel size",
        "--spacing MM",
        "Voxel size of every image in mm, in the order z y x (pictures: y x), whatever the files say.",
        once=True,
        otherwise="what the files say",
    ),
]
Memory = Annotated[
    float, Ge(0), option("Memory (GB)", "--memory GB", "For all processes together.", otherwise="what is free")
]
Cluster = Annotated[
    str | None,
    option(
        "Cluster",
        "--cluster WHERE",
        "Let workers of a cluster do it: tcp://HOST:PORT (a dask scheduler), local:N (N workers on this computer), or "
        "a .toml file about Slurm, PBS, LSF or SGE. They must see the same files under the same paths.",
        otherwise="this process",
    ),
]
#: As ``dataset``, at a position or behind ``-d``.
DatasetPosition = Annotated[str, option("Dataset", "DATASET", "Number or name of the dataset.")]
DatasetFlag = Annotated[str, option("Dataset", "-d DATASET", "Number or name of the dataset.")]
EachDataset = Annotated[str, option("Dataset", "-d DATASET", "Numbers or names of datasets.", each=True)]
PlansName = Annotated[str, option("Plans", "-p PLANS", "Name of the plans.")]
TrainerName = Annotated[str, option("Trainer", "-tr TRAINER", "One of nnU-Net's trainer names.", row=True)]
Folds = tuple[Fold, ...] | None


def read_folds(words: Sequence[str]) -> tuple[Fold, ...]:
    """Return folds written as words."""
    return tuple(parse_fold(word) for word in words)


def read_largest(words: Sequence[str]) -> int:
    """Return the largest of several numbers.

    nnU-Net takes a number of processes per configuration; here one pass makes all of them.
    """
    return max(int(word) for word in words)
