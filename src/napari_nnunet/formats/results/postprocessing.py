"""postprocessing.pkl and postprocessing.json: read without executing anything, written so that nnU-Net reads them.

nnU-Net pickles a function by the name of its module. That name is looked up in a table of one entry here, and written
without the module being there.
"""

from __future__ import annotations

import glob
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import remove_leftovers, write_json, written_beside
from napari_nnunet.formats.pickles import read_with
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.schema.cleaning import FUNCTION, Cleaning, Step, Target
from napari_nnunet.schema.json_text import read_object

_MODULE = "nnunetv2.postprocessing.remove_connected_components"
_ENDING = ".pkl"


def _keep_largest() -> None:
    """Stand for nnU-Net's function; never called."""


def read_cleaning(path: Path) -> Cleaning:
    """Read postprocessing.pkl, or the postprocessing.json next to it.

    Raises
    ------
    DatasetError
        If the file is missing, damaged, or asks for another function than nnU-Net's.
    """
    if path.suffix != _ENDING:
        return _read_json(path)
    content = read_with(path, {(_MODULE, FUNCTION): _keep_largest})
    if not isinstance(content, tuple) or len(content) != 2 or not all(isinstance(part, list) for part in content):
        raise DatasetError(f"{path} is not a postprocessing of nnU-Net: it is not a pair of functions and arguments.")
    functions, arguments = content
    if any(function is not _keep_largest for function in functions):
        raise DatasetError(f"{path} contains a postprocessing other than nnU-Net's '{FUNCTION}'; it was not applied.")
    return _parse(arguments, len(functions), path)


def _read_json(path: Path) -> Cleaning:
    content = read_object(path, DatasetError)
    try:
        names, arguments = list(content["postprocessing_fns"]), content["postprocessing_kwargs"]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is not a postprocessing of nnU-Net ({error}).") from error
    unknown = sorted({str(name) for name in names} - {FUNCTION})
    if unknown:
        raise DatasetError(f"{path} asks for {', '.join(unknown)}; only nnU-Net's '{FUNCTION}' is known.")
    # JSON knows no tuples: a list there is taken as a union, which for plain labels is the same.
    return _parse(arguments, len(names), path)


def _parse(arguments: Any, count: int, path: Path) -> Cleaning:
    try:
        if len(arguments) != count:
            raise ValueError(f"{count} functions, but {len(arguments)} sets of arguments")
        return Cleaning(steps=tuple(_step(dict(entry)) for entry in arguments))
    except (ValueError, TypeError, KeyError, OverflowError, ValidationError) as error:
        raise DatasetError(f"{path} is not a postprocessing of nnU-Net: {error}.") from error


def _step(entry: Mapping[str, Any]) -> Step:
    unknown = set(entry) - {"labels_or_regions", "background_label"}
    if unknown:
        raise ValueError(f"unknown argument {sorted(unknown)}")
    return Step(target=_target(entry["labels_or_regions"]), background=int(entry.get("background_label", 0)))


def _target(value: Any) -> Target:
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, tuple):
        return tuple(int(v) for v in value)
    if isinstance(value, list | np.ndarray):
        return [tuple(int(v) for v in entry) if isinstance(entry, tuple | list) else int(entry) for entry in value]
    raise TypeError(f"labels are numbers or lists of numbers, not {value!r}")


def write_cleaning(path: Path, cleaning: Cleaning) -> None:
    """Write postprocessing.pkl as nnU-Net reads it."""
    arguments = cleaning.arguments()
    remove_leftovers(path.parent, glob.escape(path.name))
    with written_beside(path) as temporary:
        temporary.write_bytes(_pickled(len(cleaning.steps), arguments))


def _pickled(count: int, arguments: list[dict[str, Any]]) -> bytes:
    """Return the pickle of ([function, ...], arguments); the function is a name only, so it is put in by hand."""
    body = pickle.dumps(arguments, protocol=2)[2:-1]  # between the header and the final stop
    function = b"c" + _MODULE.encode() + b"\n" + FUNCTION.encode() + b"\n"
    return b"\x80\x02" + b"](" + function * count + b"e" + body + b"\x86."


def write_report(path: Path, cleaning: Cleaning, before: Summary, after: Summary) -> None:
    """Write postprocessing.json: the scores before and after, and the steps."""
    report = {
        "input_folder": before.means(),
        "postprocessed": after.means(),
        "postprocessing_fns": cleaning.names(),
        "postprocessing_kwargs": cleaning.arguments(),
    }
    write_json(path, report, sort_keys=True)


def find_cleaning(folder: Path) -> Path | None:
    """Return the postprocessing of a model folder's cross-validation, the one with the most folds; None without."""
    found = sorted(folder.glob("crossval_results_folds_*/postprocessing.pkl"), key=lambda path: len(path.parent.name))
    return found[-1] if found else None
