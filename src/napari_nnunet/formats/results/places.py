"""Where the probabilities of several models for one case lie, and all of them on the grid of the first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.errors import DatasetError, ImageError, NnunetError
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.pickles import read_pickle
from napari_nnunet.formats.results.probabilities import ProbabilityReader, TurnedReader
from napari_nnunet.grid import Apart, Grid, Relation, Same, Turned, relation, same_voxels
from napari_nnunet.schema.geometry import Geometry, lift_shape


@dataclass(frozen=True)
class Members:
    """The probabilities of several models for one case.

    Parameters
    ----------
    case : str
        Its name.
    paths : tuple of Path
        An npz of each; beside it lie a pkl, a segmentation, or both.
    ending : str
        Of segmentations.
    reader : str, optional
        nnU-Net's class name.
    """

    case: str
    paths: tuple[Path, ...]
    ending: str
    reader: str | None

    def grid(self, shape: tuple[int, ...]) -> Geometry:
        """Return the grid of the first one's probabilities, with two axes for a picture.

        A segmentation beside tells it best, but only one that lies as they do: it may have been saved anew since, or
        be another member's.

        Parameters
        ----------
        shape : tuple of int
            ``(Z, Y, X)`` of these probabilities.

        Raises
        ------
        DatasetError
            If nothing beside any of them tells it.
        """
        known = self._place(self.paths[0], shape)
        for beside in map(self._segmentation, self.paths):
            if beside.is_file():
                labels, geometry = read_labels(beside, reader=self.reader, as_stored=True)
                own = Grid(labels.shape, geometry)
                alike = known is None or same_voxels(relation(known, own), known, own)
                if alike and lift_shape(own.shape) == shape:
                    return geometry
        if known is None:
            places = (self._place(path, shape) for path in self.paths[1:])
            known = next((place for place in places if place is not None), None)
        if known is None:
            raise DatasetError(f"Neither {self.case}{self.ending} nor {self.case}.pkl is next to {self.paths[0]}.")
        return known.geometry

    def together(self, readers: Sequence[ProbabilityReader]) -> list[ProbabilityReader | TurnedReader]:
        """Return the readers of all members on the grid of the first one.

        Raises
        ------
        ImageError
            If a member lies elsewhere, or has other voxels.
        """
        out: list[ProbabilityReader | TurnedReader] = [readers[0]]
        for path, reader in zip(self.paths[1:], readers[1:], strict=True):
            found = self._relation(path, reader, readers[0])
            if isinstance(found, Apart):
                raise ImageError(
                    f"{path} and {self.paths[0]} do not lie on the same grid: {found}. Segment the same images."
                )
            out.append(TurnedReader(reader, _lifted(found)) if isinstance(found, Turned) else reader)
        return out

    def apart(self, readers: Sequence[ProbabilityReader], *, by_voxels: bool) -> tuple[str, ...]:
        """Return what is said of members that lie otherwise than the first: taken voxel by voxel, or else turned."""
        said = []
        for path, reader in zip(self.paths[1:], readers[1:], strict=True):
            try:
                found = self._relation(path, reader, readers[0])
            except NnunetError:  # the file that would tell it cannot be used, which does not matter here
                continue
            if by_voxels and not isinstance(found, Same):
                text = "lie elsewhere" if isinstance(found, Apart) else "are stored in another orientation"
                said.append(
                    f"according to their headers, the probabilities in {path.parent} {text} than those in "
                    f"{self.paths[0].parent} ({found}); they were joined voxel by voxel"
                )
            elif isinstance(found, Turned):
                said.append(
                    f"the probabilities in {path.parent} have another shape than those in {self.paths[0].parent} and "
                    f"were reoriented by their headers ({found}); those of equal shape are joined voxel by voxel"
                )
        return tuple(said)

    def _relation(self, path: Path, reader: ProbabilityReader, other: ProbabilityReader) -> Relation:
        """Return how a member lies to the first one; grids that agree but for rounding are the same."""
        first, own = (self._place(p, r.shape[1:]) for p, r in ((self.paths[0], other), (path, reader)))
        if first is not None and own is not None:
            found = relation(first, own)
            return Same() if same_voxels(found, first, own) else found
        if reader.shape[1:] != other.shape[1:]:
            differ = f"{_times(other.shape[1:])} voxels and {_times(reader.shape[1:])}"
            return Apart(differ, elsewhere=False, voxels=math.inf)
        return Same()

    def _segmentation(self, path: Path) -> Path:
        return path.with_name(self.case + self.ending)

    def _place(self, path: Path, shape: tuple[int, ...]) -> Grid | None:
        """Return where a member's probabilities lie: by the pkl, which is theirs, else by the segmentation beside."""
        properties, beside = path.with_suffix(".pkl"), self._segmentation(path)
        if properties.is_file():
            content = read_pickle(properties)
            if not isinstance(content, Mapping):
                raise DatasetError(f"{properties} does not contain the properties of a case.")
            geometry = Geometry.from_properties(content, ndim=2 if self.reader == "NaturalImage2DIO" else 3)
        elif beside.is_file():
            labels, geometry = read_labels(beside, reader=self.reader, as_stored=True)
            if lift_shape(labels.shape) != shape:
                raise ImageError(
                    f"{beside} has {_times(labels.shape)} voxels, the probabilities {path.name} beside it have "
                    f"{_times(shape)}: it was saved again since. Segment the image again."
                )
        else:
            return None
        return Grid(shape[1:] if geometry.ndim == 2 else shape, geometry)


def _lifted(turned: Turned) -> Turned:
    """Return the same for one slice where it is said of a picture."""
    if len(turned.axes) == 3:
        return turned
    return Turned((0, *(axis + 1 for axis in turned.axes)), (False, *turned.flips))


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
