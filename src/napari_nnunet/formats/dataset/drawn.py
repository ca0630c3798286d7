"""Whether the labels of a dataset are still those that were drawn of its numbered objects.

What counts is the content of files. Their sizes and times are noted beside, so that only files that were touched are
read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import write_json, write_text
from napari_nnunet.formats.dataset.changing import one_at_a_time
from napari_nnunet.formats.dataset.objects import kinds_file, object_files
from napari_nnunet.formats.dataset.raw_dataset import read_info, survey
from napari_nnunet.formats.json_lines import read_lines
from napari_nnunet.schema.dataset import BACKGROUND, IGNORE, DatasetInfo
from napari_nnunet.schema.objects import ObjectScheme, labels_with_objects

FILE = "objects_sources.jsonl"


@dataclass(frozen=True)
class Drawn:
    """How the labels of a dataset of objects agree with the objects.

    Parameters
    ----------
    stale : tuple of str
        Cases whose objects, kinds or rules are others than those their labels were drawn of, or that have no labels.
    changed : tuple of str
        Cases whose labels are others than were drawn, while the objects are the same.
    without : tuple of str
        Cases that have labels, but no objects.
    """

    stale: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Files:
    objects: Path
    kinds: Path | None
    label: Path

    @property
    def seen(self) -> str:
        parts = []
        for path in (self.objects, self.kinds, self.label):
            if path is not None and path.is_file():
                status = path.stat()
                parts.append(f"{path.parent.name} {status.st_size} {status.st_mtime_ns}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def sources(self, rules: str) -> str:
        """Return a digest of everything that the labels are drawn of."""
        return hashlib.sha256(f"{rules} {_content(self.objects)} {_content(self.kinds)}".encode()).hexdigest()


def look_at_drawn(folder: Path) -> Drawn:
    """Compare objects and labels of a dataset with what was noted; nothing of a dataset of classes.

    Raises
    ------
    DatasetError
        If dataset.json cannot be read, or there are no objects.
    """
    info = read_info(folder)
    scheme = ObjectScheme.of(info)
    if scheme is None:
        return Drawn()
    noted, rules = _noted(folder), _rules(info, scheme)
    stale, changed = [], []
    files = _files(folder, info)
    for case, own in files.items():
        before = noted.get(case, {})
        if before.get("seen") == own.seen and before.get("rules") == rules and own.label.is_file():
            continue
        if before.get("sources") != own.sources(rules) or not own.label.is_file():
            stale.append(case)
        elif before.get("labels") != _content(own.label):
            changed.append(case)
    dataset, _ = survey(folder)
    without = tuple(case.name for case in dataset.cases if case.name not in files)
    return Drawn(tuple(stale), tuple(changed), without)


def note_drawn(folder: Path, cases: Iterable[str]) -> None:
    """Note of which objects, kinds and rules the labels of cases were drawn just now; of cases that are gone nothing.

    Raises
    ------
    DatasetError
        If the dataset has no objects.
    """
    info = read_info(folder)
    scheme = ObjectScheme.of(info)
    if scheme is None:
        raise DatasetError(f"{folder.name} is no dataset of objects.")
    rules, files = _rules(info, scheme), _files(folder, info)
    noted = {case: entry for case, entry in _noted(folder).items() if case in files}
    for case in cases:
        own = files[case]
        noted[case] = {
            "case": case,
            "seen": own.seen,
            "rules": rules,
            "sources": own.sources(rules),
            "labels": _content(own.label),
        }
    write_text(folder / FILE, "".join(f"{json.dumps(noted[case])}\n" for case in sorted(noted)))


@one_at_a_time
def rename_kinds(folder: Path, names: Mapping[str, str]) -> None:
    """Give kinds of objects, and ordinary classes beside them, other names; labels stay as they are.

    Raises
    ------
    DatasetError
        If it is no dataset of objects, a name is unknown, taken, reserved or empty.
    """
    info = read_info(folder)
    scheme = ObjectScheme.of(info)
    if scheme is None:
        raise DatasetError(f"{folder.name} is no dataset of objects.")
    before = [*scheme.kinds, *scheme.classes]
    unknown = [name for name in names if name not in before]
    if unknown:
        raise DatasetError(f"{folder.name} has no kind or class '{unknown[0]}'; it has {', '.join(before)}.")
    after = {name: names.get(name, name).strip() for name in before}
    if len(set(after.values())) < len(after) or not {"", BACKGROUND, IGNORE}.isdisjoint(after.values()):
        raise DatasetError(
            "Kinds of objects cannot be joined or removed here, for every object is of one kind, and 'background' and "
            "'ignore' have their own meaning. Change the masks in kindsTr, then derive_objects."
        )
    found = look_at_drawn(folder)
    kinds = list(scheme.kinds)
    labels, _, _ = labels_with_objects([after[kind] for kind in kinds], {}, ignore=False)
    pairs = {value: name for name, value in labels.items()}  # cores and borders come first, in the order of the kinds
    named = {
        pairs.get(value, after.get(name, name)) if isinstance(value, int) else name: value
        for name, value in info.labels.labels.items()
    }
    renamed = scheme.model_copy(
        update={
            "kinds": {after[kind]: pair for kind, pair in scheme.kinds.items()},
            "values": {value: after[kind] for value, kind in scheme.values.items()},
            "classes": {after[name]: value for name, value in scheme.classes.items()},
        }
    )
    write_json(folder / "dataset.json", renamed.write_into({**info.raw, "labels": named}))
    note_drawn(folder, sorted(set(_files(folder, info)) - {*found.stale, *found.changed}))


def foreign_labels(folder: Path, cases: Iterable[str]) -> list[Path]:
    """Return the label files of cases that are there and were not drawn of objects; they must not be lost."""
    noted, info = _noted(folder), read_info(folder)
    paths = {case: folder / "labelsTr" / f"{case}{info.file_ending}" for case in cases}
    return [
        path for case, path in paths.items() if path.is_file() and noted.get(case, {}).get("labels") != _content(path)
    ]


def _noted(folder: Path) -> dict[str, dict[str, Any]]:
    return {str(entry.get("case")): entry for entry in read_lines(folder / FILE)}


def _files(folder: Path, info: DatasetInfo) -> dict[str, _Files]:
    labels = folder / "labelsTr"
    return {
        case: _Files(path, kinds_file(folder, case), labels / f"{case}{info.file_ending}")
        for case, path in object_files(folder).items()
    }


def _content(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rules(info: DatasetInfo, scheme: ObjectScheme) -> str:
    """Return a digest of what decides how labels are drawn."""
    content: Mapping[str, Any] = {
        **scheme.model_dump(mode="json", exclude={"scores"}),
        "labels": dict(info.labels.labels),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
