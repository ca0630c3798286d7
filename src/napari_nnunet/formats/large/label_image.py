"""OME-Zarr label images: made empty, filled chunk by chunk, given a pyramid, and put in their place when complete."""

from __future__ import annotations

import itertools
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, SettingsError
from napari_nnunet.formats.json_lines import read_lines
from napari_nnunet.formats.large.journal import NAME, Writing
from napari_nnunet.formats.large.level import Level
from napari_nnunet.formats.large.ome_zarr import is_zarr, library
from napari_nnunet.formats.large.pyramid import pyramid
from napari_nnunet.formats.large.source import LargeImage
from napari_nnunet.formats.large.unpacking import bounded
from napari_nnunet.schema.colours import class_rgb
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.objects import ObjectNumbers

ENDING = ".zarr"
_UNITS = ((1.0, "millimeter"), (1e-3, "micrometer"), (1e-6, "nanometer"))
#: Units of time.
CLOCK = ("nanosecond", "microsecond", "millisecond", "second", "minute", "hour", "day")
#: Of the attributes of what was written here: where its labels come from.
MADE_HERE = "napari_nnunet"


@dataclass(frozen=True)
class Destination:
    """Where a label image goes.

    Parameters
    ----------
    path : Path
        Its final folder.
    version : str
        Of OME-Zarr: "0.5", or "0.4" within a source of that version.
    part : str
        What it is kept as within the unfinished result, where something else is kept there, too.
    """

    path: Path
    version: str = "0.5"
    part: str = ""

    @classmethod
    def of(cls, path: Path, image: LargeImage) -> Destination:
        """Return the place for a path; ``labels/NAME`` in the image's own folder gets the version of the image.

        Raises
        ------
        SettingsError
            If it lies among the voxels of the image, which is watched for changes.
        """
        for file in (*image.files, *image.behind):
            if file.absolute() in path.absolute().parents and not cls(path).is_inside:
                raise SettingsError(
                    f"{path} would lie among the files of the image {file}, which must not change while it is read. "
                    "Choose another folder for the result."
                )
        if cls(path).is_inside and isinstance(image.level, Level):
            inside = any(path.parent.parent.absolute() in (f.absolute() for f in file.parents) for file in image.files)
            if inside and not image.level.version.startswith("0.5"):
                return cls(path, "0.4")
        return cls(path)

    @property
    def unfinished(self) -> Path:
        """Where it is kept until it is complete."""
        return self.path.with_name(f"{self.path.name}.unfinished") / self.part

    @property
    def is_inside(self) -> bool:
        """Whether it lies among the labels of an image."""
        return self.path.parent.name == "labels" and is_zarr(self.path.parent.parent)

    @property
    def begun(self) -> bool:
        """Whether something was begun in this place; a journal of which a full disk kept no line is nothing yet."""
        inside = self.unfinished.iterdir() if self.unfinished.is_dir() else ()
        return any(path.name != NAME or any(read_lines(path)) for path in inside)


def ome_models(version: str) -> Any:
    """Return the library's models of the metadata of a version; raises ImageError if it is not installed."""
    return library("yaozarrs.v05" if version == "0.5" else "yaozarrs.v04", "The metadata of OME-Zarr are written")


class LabelImage:
    """A label image that is being written.

    Parameters
    ----------
    place : Destination
        Where it goes.
    image : LargeImage
        What is segmented.
    scheme : LabelScheme or ObjectNumbers
        What the values mean.
    chunk : tuple of int
        Chunks (z, y, x).
    """

    def __init__(
        self, place: Destination, image: LargeImage, scheme: LabelScheme | ObjectNumbers, chunk: Sequence[int]
    ) -> None:
        self.place, self._image, self._scheme = place, image, scheme
        self._axes = ("T" if image.times > 1 else "") + "ZYX"[-len(image.shape) :]
        self._chunk = tuple(chunk[-len(image.shape) :])
        self._zarr = library("zarr", "Labels of large images are kept")
        self._models = ome_models(place.version)
        self._finest: Any = None
        # The same for reading: whatever its metadata name, nothing in its chunks is carried out.
        self._there: Any = None
        self._coarser: list[tuple[Any, tuple[int, ...]]] = []

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Chunks (z, y, x)."""
        z, y, x = (1, *self._chunk)[-3:]
        return z, y, x

    def open(self, *, begun: bool, seen: bool = False) -> None:
        """Make it, without a voxel: chunks that are not written are background; or open what an earlier run began.

        Parameters
        ----------
        begun : bool
            Whether blocks of it were written already.
        seen : bool
            Whether somebody looks at it while it is filled: its coarser levels are filled together with the finest.
            Only one process may write then.

        Raises
        ------
        ImageError
            If what was begun is damaged.
        """
        if begun:
            self._open()
        else:
            with self._writing():
                group = self._zarr.open_group(str(self.place.unfinished), mode="a", zarr_format=self._format)
                self._finest = self._there = self._new(group, "0", self._shape)
        factors = pyramid(self._shape, self._spacing)
        if seen:
            self._open_coarser(factors)
        else:  # these blocks will not be in them
            for number in range(1, len(factors)):
                self.forget_beside(str(number))

    def _open_coarser(self, factors: Sequence[tuple[int, ...]]) -> None:
        """Open the coarser levels as far as they are filled already; make them of the finest where they are not."""
        with self._writing():
            group = self._zarr.open_group(str(self.place.unfinished), mode="a", zarr_format=self._format)
            finer = self._there
            for number, (before, factor) in enumerate(itertools.pairwise(factors), start=1):
                shape = tuple(math.ceil(n / f) for n, f in zip(self._shape, factor, strict=True))
                try:
                    path = str(self.place.unfinished / str(number))
                    there = bounded(self._zarr.open_array(path, mode="r+"), path)  # blocks are parts of its chunks
                except Exception:  # whatever a store raises: it is not there, or not whole
                    there = None
                if there is None or (there.shape, there.chunks) != (shape, self._chunks(shape)):
                    steps = [b // a for a, b in zip(before, factor, strict=True)]
                    there = self._halve(group, str(number), finer, steps)
                finer = there
                self._coarser.append((there, factor))

    def _open(self) -> None:
        path = self.place.unfinished / "0"
        try:
            self._finest = self._zarr.open_array(str(path), mode="r+")
            self._there = bounded(self._finest, str(path))
        except Exception as error:  # whatever a store raises
            raise ImageError(f"{path} is damaged: {error}. Delete {self.place.unfinished} and begin again.") from error
        found = tuple(self._finest.shape), tuple(self._finest.chunks), self._finest.dtype
        if found != (self._shape, self._chunks(self._shape), np.dtype(self._scheme.dtype)):
            raise ImageError(
                f"{self.place.unfinished} was begun for an image of another shape, or in other parts. Delete it and "
                "begin again."
            )

    def write(self, box: Sequence[tuple[int, int]], labels: NDArray[Any], time: int = 0) -> None:
        """Write a box (z, y, x) of a time point, which is made of whole chunks.

        Raises
        ------
        ResourceError
            If the disk is full or not there; what was written before stays.
        """
        index = tuple(slice(lo, hi) for lo, hi in box)[-len(self._image.shape) :]
        values = labels if len(self._image.shape) == 3 else labels[0]
        at = (time, *index) if self._image.times > 1 else index
        with self._writing():
            self._finest[at] = values
            for coarser, factor in self._coarser:
                own = list(zip(index, factor[-len(index) :], strict=True))
                place = tuple(slice(math.ceil(part.start / f), math.ceil(part.stop / f)) for part, f in own)
                there = values[tuple(slice(-part.start % f, None, f) for part, f in own)]
                if there.size:
                    coarser[(time, *place) if self._image.times > 1 else place] = there

    def read(self, box: Sequence[tuple[int, int]], time: int = 0) -> NDArray[Any]:
        """Read what was written in a box (z, y, x)."""
        index = tuple(slice(lo, hi) for lo, hi in box)[-len(self._image.shape) :]
        values = np.asarray(self._there[(time, *index) if self._image.times > 1 else index])
        return values if values.ndim == 3 else values[None]

    def complete(self, origin: Mapping[str, Any]) -> None:
        """Write the coarser levels and the metadata.

        Parameters
        ----------
        origin : dict
            Where the labels come from; kept in the attributes under ``napari_nnunet``.
        """
        factors = pyramid(self._shape, self._spacing)
        with self._writing():
            group = self._zarr.open_group(str(self.place.unfinished), mode="r+", zarr_format=self._format)
            finer = self._there
            for number, (before, factor) in enumerate(itertools.pairwise(factors), start=1):
                finer = self._halve(group, str(number), finer, [b // a for a, b in zip(before, factor, strict=True)])
            attributes = self._attributes(factors)
            group.attrs.put({**attributes, MADE_HERE: dict(origin)})

    def origin(self) -> dict[str, Any]:
        """Return where the labels of the complete image come from; empty where it does not say so."""
        try:
            found = self._zarr.open_group(str(self.place.path), mode="r").attrs.get(MADE_HERE)
        except Exception:  # of many kinds, where it is no group: a file, or damaged
            return {}
        return found if isinstance(found, dict) else {}

    def settle(self) -> None:
        """Put the complete image in its place, and name it in the group of labels it lies in."""
        place = self.place
        with self._writing():
            os.rename(place.unfinished, place.path)
            if place.is_inside:
                self._list()

    def forget_beside(self, name: str) -> None:
        """Delete something that was kept within the unfinished image."""
        shutil.rmtree(self.place.unfinished / name, ignore_errors=True)

    def forget(self) -> None:
        """Delete what was begun."""
        shutil.rmtree(self.place.unfinished, ignore_errors=True)

    @property
    def _format(self) -> int:
        return 3 if self.place.version == "0.5" else 2

    @property
    def _shape(self) -> tuple[int, ...]:
        return (*((self._image.times,) if self._image.times > 1 else ()), *self._image.shape)

    @property
    def _spacing(self) -> tuple[float, ...]:
        return (*((math.inf,) if self._image.times > 1 else ()), *self._image.geometry.spacing)

    def _new(self, group: Any, name: str, shape: Sequence[int]) -> Any:
        more: dict[str, Any] = {"dimension_names": [axis.lower() for axis in self._axes]}
        if self._format == 2:
            more = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        return group.create_array(
            name,
            shape=tuple(shape),
            chunks=self._chunks(shape),
            dtype=self._scheme.dtype,
            fill_value=0,
            overwrite=True,
            **more,
        )

    def _chunks(self, shape: Sequence[int]) -> tuple[int, ...]:
        chunk = (*((1,) if self._image.times > 1 else ()), *self._chunk)
        return tuple(min(c, n) for c, n in zip(chunk, shape, strict=True))

    def _halve(self, group: Any, name: str, finer: Any, steps: Sequence[int]) -> Any:
        """Write a coarser level by taking every second voxel, a few chunks at a time: labels are not averaged."""
        shape = [math.ceil(n / step) for n, step in zip(finer.shape, steps, strict=True)]
        coarser = self._new(group, name, shape)
        edges = [range(0, n, chunk) for n, chunk in zip(shape, coarser.chunks, strict=True)]
        for corner in itertools.product(*edges):
            ends = [min(lo + chunk, n) for lo, chunk, n in zip(corner, coarser.chunks, shape, strict=True)]
            wanted = tuple(slice(lo, hi) for lo, hi in zip(corner, ends, strict=True))
            source = tuple(
                slice(lo * step, (hi - 1) * step + 1) for lo, hi, step in zip(corner, ends, steps, strict=True)
            )
            values = np.asarray(finer[source])[tuple(slice(None, None, step) for step in steps)]
            if values.any():
                coarser[wanted] = values
        return coarser

    def _attributes(self, factors: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Return the metadata, written and checked by the library."""
        axes, scale, translation = self._world()
        datasets = []
        for number, factor in enumerate(factors):
            # Every second voxel of the finer level: the first one lies where it lay.
            steps: list[dict[str, Any]] = [
                {"type": "scale", "scale": [s * f for s, f in zip(scale, factor, strict=True)]}
            ]
            if any(translation):
                steps.append({"type": "translation", "translation": list(translation)})
            datasets.append({"path": str(number), "coordinateTransformations": steps})
        multiscale = {"name": self.place.path.name, "axes": axes, "datasets": datasets, "type": "nearest"}
        names = {value: name for value, name in self._scheme.names.items() if value > 0}
        about: dict[str, Any] = {}
        if names:
            about["colors"] = [{"label-value": value, "rgba": [*class_rgb(value), 255]} for value in names]
        if self.place.is_inside:
            about["source"] = {"image": "../../"}
        content: dict[str, Any]
        if self._format == 2:
            content = {"multiscales": [{**multiscale, "version": "0.4"}], "image-label": {**about, "version": "0.4"}}
        else:
            content = {"version": "0.5", "multiscales": [multiscale], "image-label": about}
        if names:
            properties = [{"label-value": value, "name": name} for value, name in names.items()]
            content["image-label"]["properties"] = properties
        checked = self._models.LabelImage.model_validate(content).model_dump(mode="json", exclude_none=True)
        # Checked by the library, which would write whole numbers as fractions and leave out the names.
        checked["image-label"] = content["image-label"]
        return checked if self._format == 2 else {"ome": checked}

    def _world(self) -> tuple[list[dict[str, Any]], list[float], list[float]]:
        """Return axes, voxel size and place of the first voxel as the source says them, else in its spacing's unit."""
        level, lies = self._image.level, self._image.lies
        axes: list[dict[str, Any]] = []
        scale, translation = [], []
        spacing, known = lies.geometry.spacing, lies.geometry.spacing_known
        says = isinstance(level, Level) and level.letters == self._image.axes
        says = says and (level.spacing() == spacing or not known)
        length, unit = next((u for u in _UNITS if max(spacing) >= u[0]), _UNITS[-1]) if known else (1.0, "")
        for axis in self._axes:
            kind = "time" if axis == "T" else "space"
            if says:
                place = level.letters.index(axis)
                named, first, size = _unit_of(level.axes[place]), level.translation[place], level.scale[place]
            elif kind == "time":
                first, size, clock = lies.times
                named = {"unit": clock} if clock in CLOCK else {}
            else:
                place = "ZYX"[-len(spacing) :].index(axis)
                named, first, size = (
                    {"unit": unit} if unit else {},
                    lies.origin[place] / length,
                    spacing[place] / length,
                )
            axes.append({"name": axis.lower(), "type": kind, **named})
            scale.append(size)
            translation.append(first)
        return axes, scale, translation

    def _list(self) -> None:
        """Name the image in the group of labels it lies in."""
        folder = self.place.path.parent
        group = self._zarr.open_group(str(folder), mode="a", zarr_format=self._format)
        known = group.attrs.asdict()
        named = list((known.get("ome", {}) if self._format == 3 else known).get("labels", ()))
        labels = [*named, *([] if self.place.path.name in named else [self.place.path.name])]
        content = self._models.LabelsGroup.model_validate({"labels": labels}).model_dump(mode="json", exclude_none=True)
        group.attrs.put({**known, **(content if self._format == 2 else {"ome": content})})

    def _writing(self) -> Writing:
        return Writing(self.place.unfinished)


def _unit_of(axis: Mapping[str, Any]) -> dict[str, str]:
    return {"unit": str(axis["unit"])} if axis.get("unit") else {}


def require_free(place: Destination, more: str = "") -> None:
    """Raise SettingsError if a finished result lies in a place already, of which there may be more to say."""
    if place.path.exists():
        raise SettingsError(f"{place.path} already exists.{more} Choose another name, or delete it.")
