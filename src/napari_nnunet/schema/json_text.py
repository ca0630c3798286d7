"""Reading JSON files: those that values of this package come from, and those that programs leave for each other.

Every JSON file is read here. People write them by hand and with other programs, and they come from other people: any
encoding that can be told is read, and size, depth and numbers have limits, so that whatever a file holds ends in values
or in a sentence.
"""

from __future__ import annotations

import codecs
import json
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from napari_nnunet.errors import NnunetError

#: Bytes of a file at most; the scores of thousands of cases with hundreds of classes have some 100 MB.
LARGEST = 256 << 20
#: Bytes of a file that a program leaves for another one: who runs, what is asked for.
MESSAGE = 1 << 20
#: Bytes of a file in which a program notes some values of every case.
NOTED = 64 << 20
_DEEPEST = 100  # objects and lists within each other; what is deeper can be read, but not written again
_LOOKED_THROUGH = (
    1 << 20
)  # characters; larger files are tables of numbers, which go into models with limits of their own
_BY_HAND = 16 << 20  # characters; in larger files nobody writes, and keys written twice are not looked for
_LONGEST_NUMBER = 18  # digits; more than that is no count, and no float64
_OPENING = re.compile(r"[\[{]")
_LONG = re.compile(rf"\d{{{_LONGEST_NUMBER + 1}}}")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _numeric(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("it must be a number, and is neither true nor false")
    if isinstance(value, str):
        raise ValueError("it must be a number, without quotation marks")
    return value


def _boolean(value: Any) -> Any:
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError("it must be true or false, without quotation marks")
    return bool(value)


#: Numbers and switches of a file as its programs mean them: true is no 1, "2" is no 2, and "false" is not false.
Whole = Annotated[int, BeforeValidator(_numeric)]
Real = Annotated[float, BeforeValidator(_numeric)]
Switch = Annotated[bool, BeforeValidator(_boolean)]


def read_text(path: Path, error: type[NnunetError], *, largest: int = LARGEST) -> str:
    """Return the text of a file in UTF-8, UTF-16 or UTF-32, else as Windows writes it (cp1252).

    Parameters
    ----------
    path : Path
        The file.
    error : type
        What is raised where it cannot be read: missing, a folder, a pipe, larger than ``largest`` bytes, or no text.
    """
    return text_in(read_content(path, error, largest=largest), path, error)


def read_content(path: Path, error: type[NnunetError], *, largest: int = LARGEST) -> bytes:
    """Return the bytes of a file; raises as :func:`read_text` where it cannot be read, or is too large."""
    if path.is_dir():
        raise error(f"{path} is a folder; a file is expected.")
    try:
        # To open one that lies in a folder waits, perhaps for ever, until somebody writes; a shell's <(...) ends.
        if stat.S_ISFIFO(path.stat().st_mode) and path.parts[1:2] != ("dev",):
            raise error(f"{path} is a pipe; a file is expected.")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as reason:
        raise error(f"{path} cannot be read: {reason.strerror or reason}.") from reason
    if len(content) > largest:
        raise error(f"{path} was refused: it has more than {largest:,} bytes, which no file of this kind needs.")
    return content


def text_in(content: bytes, path: Path, error: type[NnunetError]) -> str:
    """Return the text that a file's bytes are; raises an error of the given type where they are none."""
    try:
        return decoded(content)[0]
    except UnicodeDecodeError as reason:
        raise error(
            f"{path} is not text in UTF-8, UTF-16 or cp1252 (from byte {reason.start}). Save it again as UTF-8."
        ) from reason


def decoded(content: bytes) -> tuple[str, str]:
    """Return a JSON text and its encoding: by its mark, by the zeros in its first characters, else UTF-8 or cp1252.

    Raises
    ------
    UnicodeDecodeError
        If it is none of these.
    """
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    encoding = marked or json.detect_encoding(content)
    try:
        return content.decode(encoding), encoding
    except UnicodeDecodeError:
        if marked or encoding != "utf-8" or b"\0" in content:
            raise
        return content.decode("cp1252"), "cp1252"


def json_value(text: str, where: str, error: type[NnunetError]) -> Any:
    """Return what a JSON text holds.

    Parameters
    ----------
    text : str
        Of the file.
    where : str
        Named in errors: the file.
    error : type
        What is raised where the text is damaged, nested too deeply, holds a number or a text that no program can use,
        or names a key twice with different values.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once if len(text) <= _BY_HAND else None)
    except json.JSONDecodeError as reason:
        raise error(f"{where} is not valid JSON: {reason}.{_slip(text, reason.pos)}") from reason
    except _Twice as reason:
        raise error(f"{where}: {reason}") from reason
    except RecursionError as reason:
        raise error(_too_deep(where)) from reason
    except ValueError as reason:  # Python's own limit of digits
        raise error(f"{where}: {_long_number(json.loads(text, parse_int=_kept))}") from reason
    if _SURROGATE.search(text):
        _refuse_halves(value, where, error)
    if len(text) <= _LOOKED_THROUGH and (_LONG.search(text) or sum(1 for _ in _OPENING.finditer(text)) > _DEEPEST):
        _refuse_excess(value, where, error)
    return value


def json_object(text: str, where: str, error: type[NnunetError]) -> dict[str, Any]:
    """Return the object a JSON text holds; raises ``error`` as :func:`json_value`, and where it is something else."""
    content = json_value(text, where, error)
    if not isinstance(content, dict):
        raise error(f"{where} must hold a JSON object, not {type(content).__name__}.")
    return content


def read_json(path: Path, error: type[NnunetError]) -> Any:
    """Return what a JSON file holds; errors as :func:`read_text` and :func:`json_value`."""
    return json_value(read_text(path, error), str(path), error)


def read_object(path: Path, error: type[NnunetError]) -> dict[str, Any]:
    """Return the object in a JSON file; errors as :func:`read_text` and :func:`json_object`."""
    return json_object(read_text(path, error), str(path), error)


def message(path: Path, *, largest: int = MESSAGE) -> dict[str, Any]:
    """Return the object in a file that a program left, small if not said otherwise; empty where none can be read."""
    try:
        return json_object(read_text(path, NnunetError, largest=largest), str(path), NnunetError)
    except NnunetError:
        return {}


def first_problem(error: Exception, names: Mapping[str, str] | None = None) -> str:
    """Return what is wrong with the content of a file in words: key, value and what was allowed.

    Parameters
    ----------
    error : Exception
        Of pydantic, or of looking up, counting and converting.
    names : mapping of str to str, optional
        Keys in the file of fields that are called otherwise.
    """
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        field, *rest = first["loc"] or ("",)
        key = ".".join(str(part) for part in ((names or {}).get(str(field), field), *rest))
        said = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "it must be")
        if first["type"] == "missing":
            return f"'{key}' is missing."
        return f"'{key}' is {shortened(first['input'])}: {said}." if key else f"{said}."
    return f"{error} is missing." if isinstance(error, KeyError) else f"{error}."


def shortened(value: Any) -> str:
    """Return a value for a message, whatever its size."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number or a nesting that Python itself does not write
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:56]} ..."


class _Twice(Exception):
    """A key that an object has twice; JSON's readers drop the first one without a word."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if repr(value) != repr(found[key]):  # 1 is no true, and NaN is NaN
                raise _Twice(
                    f"'{key[:100]}' is written twice within one object, as {shortened(value)} and as "
                    f"{shortened(found[key])}. Keep one, or give the other its own name."
                )
    return found


_SLIPS = (  # what people write that JSON does not have, before or at the place where reading stops
    (re.compile(r"[\s,]*(//|/\*|#)"), "JSON has no comments: remove what begins with {}."),
    (re.compile(r"\s*(')"), "JSON has texts in double quotes only; this one begins with {}."),
    (re.compile(r"\s*([\u2018-\u201f])"), "JSON has texts in straight double quotes only; this one begins with {}."),
    (re.compile(r"\s*(True|False|None)\b"), "JSON has true, false and null; {} is Python's."),
    (re.compile(r",?\s*([}\]])"), "Remove the comma before {}."),
)


def _slip(text: str, place: int) -> str:
    """Return what was written where reading stopped, if people often write it; empty otherwise."""
    if not text.strip():
        return " The file is empty."
    before = text[:place].rstrip()
    for pattern, said in _SLIPS:
        found = pattern.match(text, place)
        if found and (found[1] not in "}]" or before.endswith(",") or text[place] == ","):
            return f" {said.format(found[1])}"
    return ""


def _too_deep(where: str) -> str:
    return f"{where} nests objects and lists more than {_DEEPEST} deep, which no file of this kind does."


class _Kept(str):
    """The digits of a number that is too long."""


def _kept(digits: str) -> int | _Kept:
    return _Kept(digits) if len(digits.lstrip("-")) > _LONGEST_NUMBER else int(digits)


def _long_number(value: Any) -> str:
    return next(_too_long(key, len(found.lstrip("-"))) for key, _, found in _values(value) if isinstance(found, _Kept))


def _too_long(key: str, digits: int) -> str:
    return f"'{key[:100]}' is a number of {digits:,} digits; at most {_LONGEST_NUMBER} are read."


def _refuse_excess(value: Any, where: str, error: type[NnunetError]) -> None:
    for key, depth, found in _values(value):
        if depth > _DEEPEST:
            raise error(_too_deep(where))
        if type(found) is int and abs(found) >= 10**_LONGEST_NUMBER:
            raise error(f"{where}: {_too_long(key, len(str(abs(found))))}")


def _refuse_halves(value: Any, where: str, error: type[NnunetError]) -> None:
    for key, _, found in _values(value):
        for text in (key, found) if isinstance(found, str) else (key,):
            try:
                text.encode()
            except UnicodeEncodeError as reason:
                raise error(f"{where}: {text!r:.60} holds half of a character and cannot be written.") from reason


def _values(value: Any) -> Iterator[tuple[str, int, Any]]:
    """Give the values within a value, each with its keys joined by dots, and how deep it lies; empty containers too."""
    pending = [("", 0, value)]
    while pending:
        key, depth, found = pending.pop()
        if not isinstance(found, dict | list) or not found:
            yield key, depth + isinstance(found, dict | list), found
            continue
        items = found.items() if isinstance(found, dict) else enumerate(found)
        pending += [(f"{key}.{name}" if key else str(name), depth + 1, item) for name, item in items]
