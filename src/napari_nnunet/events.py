"""The closed set of events a job yields, and the job itself.

A job is a generator: it *yields* events, *returns* its result, *raises* its errors and is *cancelled* by ``close()``.
Events hold scalars and short tuples only, so the same stream drives a progress bar, a dock and a JSON-lines file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator
from typing import Annotated, Any, Generic, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from napari_nnunet.errors import InternalError, NnunetError, memory_told

T = TypeVar("T")
Box: TypeAlias = tuple[tuple[int, int], ...]


class _Event(BaseModel):
    """Frozen base of all events; ``time`` is in seconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time: float = Field(default_factory=time.time)


class Stage(_Event):
    """A new phase begins; ``total`` is its number of steps, None if it is not known."""

    kind: Literal["stage"] = "stage"
    name: str
    total: int | None = None


class Progress(_Event):
    """``done`` of ``total`` steps of the current stage are finished."""

    kind: Literal["progress"] = "progress"
    done: int
    total: int
    seconds_left: float | None = None


class Note(_Event):
    """A sentence for the user: a choice made for them, a fallback, a warning; a "detail" only for those who ask.

    ``in_window`` says the same with what to do in a window instead of in a shell; empty where that is no other.
    """

    kind: Literal["note"] = "note"
    text: str
    level: Literal["detail", "info", "warning"] = "info"
    in_window: str = ""

    @classmethod
    def about(cls, before: str, error: NnunetError) -> Self:
        """Return a warning about an error that does not end the job, after some words of its own."""
        text, window = f"{before} {error.message}", f"{before} {error.in_window}"
        return cls(text=text, level="warning", in_window="" if window == text else window)


class Painted(_Event):
    """The canvas of a prediction changed inside ``box`` (half-open, in image voxels).

    ``final`` tells finished labels from the preview of a single tile.
    """

    kind: Literal["painted"] = "painted"
    box: Box
    final: bool


class Found(BaseModel):
    """What is in a segmentation: voxels and volume of a class, or how many objects of a kind."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    voxels: int | None = None
    mm3: float | None = None
    objects: int | None = None


class CaseDone(_Event):
    """One case of many is finished; ``path`` is its main output, ``found`` what is in it where that was counted."""

    kind: Literal["case_done"] = "case_done"
    case: str
    index: int
    total: int
    path: str = ""
    seconds: float = 0.0
    skipped: bool = False
    found: tuple[Found, ...] = ()


class CaseFailed(_Event):
    """One case of many failed; the others continue. ``report`` is the traceback of a fault of this program.

    ``in_window`` says the same as ``message``, with what to do in a window instead of in a shell.
    """

    kind: Literal["case_failed"] = "case_failed"
    case: str
    index: int
    total: int
    message: str
    in_window: str = ""
    report: str = ""

    @classmethod
    def of(cls, case: str, error: NnunetError, index: int, total: int) -> Self:
        """Return what to tell about a case's error."""
        report = error.report if isinstance(error, InternalError) else ""
        texts = {"message": error.message, "in_window": error.in_window}
        return cls(case=case, index=index, total=total, report=report, **texts)


class EpochDone(_Event):
    """An epoch of a training is finished; what it says about its patches, None if there was nothing to say.

    ``dice`` has one entry per class of ``names``; ``average`` is their mean's moving average, ``waiting`` the share of
    the time that was spent waiting for batches.
    """

    kind: Literal["epoch_done"] = "epoch_done"
    epoch: int
    epochs: int
    train_loss: float
    val_loss: float
    dice: tuple[float | None, ...]
    names: tuple[str, ...]
    average: float | None
    rate: float
    seconds: float
    waiting: float = 0.0
    seconds_left: float | None = None
    best: bool = False


class CheckpointSaved(_Event):
    """A checkpoint was written; ``epoch`` epochs are finished in it."""

    kind: Literal["checkpoint_saved"] = "checkpoint_saved"
    path: str
    epoch: int


class Previewed(_Event):
    """A frame of the film was written: one validation slice, as the network sees it after ``epoch`` epochs."""

    kind: Literal["previewed"] = "previewed"
    path: str
    epoch: int


class Ended(_Event):
    """A recorded job is over, with a sentence; where it failed, ``report`` names the file that says where."""

    kind: Literal["ended"] = "ended"
    how: Literal["finished", "stopped", "failed"]
    text: str
    report: str = ""


Event: TypeAlias = Annotated[
    Stage | Progress | Note | Painted | CaseDone | CaseFailed | EpochDone | CheckpointSaved | Previewed | Ended,
    Field(discriminator="kind"),
]
Job: TypeAlias = Generator[Event, None, T]

_ADAPTER: TypeAdapter[Any] = TypeAdapter(Event)


def to_json(event: Event) -> str:
    """Return the event as one JSON line without the line break."""
    return str(event.model_dump_json())


def from_json(line: str) -> Event:
    """Read back what :func:`to_json` wrote.

    Raises
    ------
    ValueError
        If the line is no event of the closed set.
    """
    try:
        event: Event = _ADAPTER.validate_python(json.loads(line))
    except RecursionError as error:
        raise ValueError("It nests lists too deeply.") from error
    return event


class Pump(Generic[T]):
    """Drives a job: iterate over its events within the block, and take its ``result`` when they have come to an end.

    At the end of the block the job is closed, wherever it was. Running out of memory raises a
    :class:`~napari_nnunet.errors.ResourceError`, whichever library missed it.

    Parameters
    ----------
    job : Job
        Not begun.
    """

    result: T

    def __init__(self, job: Job[T]) -> None:
        self._job = job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._job.close()

    def __iter__(self) -> Iterator[Event]:
        with memory_told():
            self.result = yield from self._job


def drain(job: Job[T], listen: Callable[[Event], object] | None = None) -> T:
    """Run a job to its end and return its result; events are ignored, or each is handed to ``listen``."""
    with Pump(job) as pump:
        for event in pump:
            if listen is not None:
                listen(event)
    return pump.result
