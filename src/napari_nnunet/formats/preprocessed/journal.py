"""Which cases are finished, and from what: one JSON line per case, so that a killed job loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from napari_nnunet.formats.json_lines import append_lines, read_lines
from napari_nnunet.formats.workspace import Workspace, stamp
from napari_nnunet.grid import WhenApart

BETWEEN = ":"  # the parts of what a case was made from
_ENDING = ".cases.jsonl"
_CASES = (".b2nd", ".npz")  # of preprocessed cases
FilesFacts = Mapping[str, tuple[int | str, ...]]  # size, time and digest by the names of files


class Journal:
    """A file of ``{"case": ..., "made_from": ..., "files": ...}`` lines; the last line of a case counts.

    Parameters
    ----------
    path : Path
        Next to the folder it describes, not in it: nnU-Net refuses folders with other files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, data: Path) -> Journal:
        """Return the journal of a folder of preprocessed cases."""
        return cls(data.with_name(f"{data.name}{_ENDING}"))

    def read(self) -> dict[str, str]:
        """Return case and digest of what is finished."""
        found = {str(entry.get("case")): entry.get("made_from") for entry in read_lines(self.path)}
        return {case: digest for case, digest in found.items() if isinstance(digest, str)}

    def stored(self) -> dict[str, FilesFacts]:
        """Return what the files of each finished case were when they were written; older journals do not say it."""
        found: dict[str, FilesFacts] = {}
        for entry in read_lines(self.path):
            case, files = str(entry.get("case")), entry.get("files")
            if entry.get("made_from") is None:
                found.pop(case, None)
            elif isinstance(files, dict):
                found[case] = {name: tuple(facts) for name, facts in files.items() if isinstance(facts, list)}
        return found

    def note(self, cases: Iterable[str], digest: str | None, files: FilesFacts | None = None) -> None:
        """Append that cases are finished, or with None that they are being rewritten.

        Parameters
        ----------
        cases : iterable of str
            Names.
        digest : str, optional
            What they were made from.
        files : mapping, optional
            Size, time and digest of what was written of a single case; what was said before stays without it.

        Raises
        ------
        ResourceError
            If that cannot be written.
        """
        more = {} if files is None else {"files": files}
        append_lines(self.path, (json.dumps({"case": case, "made_from": digest, **more}) for case in cases))

    def joined(self) -> dict[str, WhenApart]:
        """Return how the files of each finished case were brought together."""
        return {case: how_joined(digest) for case, digest in self.read().items()}


def how_joined(digest: str) -> WhenApart:
    """Return what was done with files that lie apart, by what a journal says that a case was made from."""
    how = (*digest.split(BETWEEN), "", "", "", "")[3]
    return "ignore" if how == "ignore" else "resample" if how == "resample" else "refuse"


def usual(joined: Mapping[str, WhenApart]) -> WhenApart:
    """Return how cases were brought together, if all in the same way; else "refuse"."""
    ways = set(joined.values())
    return ways.pop() if len(ways) == 1 else "refuse"


def joined_in(folder: Path) -> dict[str, WhenApart]:
    """Return how the files of a raw dataset's cases were brought together when each was preprocessed last.

    Cases that were not preprocessed are not in it. Those that nnU-Net preprocessed have no journal: it takes voxels as
    they lie, whatever the headers say.
    """
    own = Workspace.resolve()  # nnU-Net's variables may name three places that have nothing else in common
    workspace = own if own.dataset_of(folder) is not None else Workspace.around(folder)
    base = workspace.preprocessed / folder.name
    return {**dict.fromkeys(_by_nnunet(base, folder / "labelsTr"), "ignore"), **joined_at(base)}


def _by_nnunet(base: Path, labels: Path) -> Iterator[str]:
    """Return the cases that something else than this program preprocessed, and whose labels were not written since."""
    folders = [path for path in base.glob("*/") if not Journal.of(path).path.exists()]
    made = [(path, mine) for folder in folders for path in folder.iterdir() if (mine := stamp(path)) is not None]
    if not made:
        return
    written: dict[str, int] = {}
    for label in labels.glob("*"):
        parts = label.name.split(".")  # a case's name may have dots
        for count in range(1, len(parts)):
            written[".".join(parts[:count])] = (stamp(label) or (0, 0))[0]
    for path, (time, _) in made:
        if path.suffix in _CASES and written.get(path.stem, time + 1) <= time:
            yield path.stem


def joined_at(base: Path) -> dict[str, WhenApart]:
    """Return the same of the folder of a preprocessed dataset."""
    found: dict[str, WhenApart] = {}
    for path in sorted(base.glob(f"*{_ENDING}"), key=lambda path: (stamp(path) or (0, 0))[0]):
        found.update(Journal(path).joined())
    return found


def joined_by(folder: Path, name: str) -> WhenApart:
    """Return how the files of a case were brought together when it was preprocessed last; "refuse" if it was not.

    Parameters
    ----------
    folder : Path
        The raw dataset.
    name : str
        Of the case.
    """
    return joined_in(folder).get(name, "refuse")
