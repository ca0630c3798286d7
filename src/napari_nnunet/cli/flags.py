"""Flags and ``--help`` of a verb, made of its request; and the requests that were typed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.requests.option import Flag, Request
from napari_nnunet.schema.requests.words import is_switch, types_of

R = TypeVar("R", bound=Request)
_CONVERTERS = (
    int,
    float,
    Path,
)  # by argparse, whose complaint names the flag; everything else is checked by the request


def add_flags(parser: argparse.ArgumentParser, kind: type[Request]) -> None:
    """Give a parser the flags of a request. What is not typed leaves no trace, so that it is told from a default."""
    for name, field, flag in kind.flags():
        words = [name] if flag.positional else list(flag.names)
        how: dict[str, Any] = {"help": help_of(field, flag), "default": argparse.SUPPRESS}
        if not flag.positional:
            how |= {"dest": name, "required": field.is_required()}
        if is_switch(field, flag):
            how |= {"action": "store_const", "const": flag.sets}
        else:
            how |= {"metavar": flag.axes or flag.metavar, **_values(field, flag)}
        if "action" not in how and not flag.positional:
            adds_up = how.get("nargs") == "+" and not flag.once  # given twice, it has the values of both
            how["action"] = "extend" if adds_up else _Once
        parser.add_argument(*words, **how)


class _Once(argparse.Action):
    """Takes the value of a flag, or values that mean one thing together; those given last count, and it is said."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        before = getattr(namespace, self.dest, values)
        if _typed(before) != _typed(values):
            told = f"{option_string} is given twice, with {_typed(before)} and with {_typed(values)}; the last counts."
            print(f"Warning: {told}", file=sys.stderr)
        setattr(namespace, self.dest, values)


def _typed(values: Any) -> str:
    return " ".join(map(str, values)) if isinstance(values, list) else str(values)


def add_unused(parser: argparse.ArgumentParser, flags: Iterable[str]) -> None:
    """Let a parser take flags that mean nothing, with a value each."""
    for flag in flags:
        parser.add_argument(flag, metavar="X", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def help_of(field: FieldInfo, flag: Flag) -> str:
    """Return the help of a flag: its sentence, and what counts where it is not given."""
    text, default = sentence_of(field, flag), default_of(field, flag)
    return (f"{text} (default: {default})" if default else text).replace("%", "%%")


def sentence_of(field: FieldInfo, flag: Flag) -> str:
    """Return what a flag means, as it stands in a list: without a capital and a full stop."""
    text = flag.shell or field.description or ""
    text = text if text.endswith("...") else text.removesuffix(".")
    if text.split()[0].istitle():  # not HD95, not DatasetXXX_Name
        text = text[0].lower() + text[1:]
    return text


def default_of(field: FieldInfo, flag: Flag) -> str:
    """Return what counts where a flag is not given, in words; empty where there is nothing to say."""
    if flag.otherwise is not None:
        return flag.otherwise
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined or default is None or is_switch(field, flag) or default in ("", (), {}):
        return ""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def choices_of(field: FieldInfo, flag: Flag) -> tuple[str, ...]:
    """Return the words a flag takes, where they are counted."""
    kind = types_of(field.annotation)[0]
    return flag.choices or (get_args(kind) if get_origin(kind) is Literal else ())


def _values(field: FieldInfo, flag: Flag) -> dict[str, Any]:
    kind = types_of(field.annotation)[0]
    found: dict[str, Any] = {}
    if get_origin(kind) is tuple and not flag.axes:
        found["nargs"], kind = "+", get_args(kind)[0]
    elif flag.axes:
        found["nargs"], kind = len(flag.axes), get_args(kind)[0]
    elif flag.each or flag.many or get_origin(kind) is dict:
        found["nargs"] = "+"
    elif flag.bare is not None:
        found |= {"nargs": "?", "const": flag.bare}
    choices = choices_of(field, flag)
    if choices:
        found |= {"choices": choices}
    elif kind in _CONVERTERS and flag.reads is None:
        found["type"] = _path if kind is Path else kind
    return found


def _path(word: str) -> Path:
    """Return a path; one of no letters, which a variable that is not set leaves, is not the folder one is in."""
    if not word.strip():
        raise argparse.ArgumentTypeError(
            f"{word!r} is an empty path. Is a variable of the shell not set? '.' is the folder you are in"
        )
    return Path(word)


def read(kind: type[R], options: argparse.Namespace) -> list[R]:
    """Return the requests that were typed: one, or one for each value of a flag that takes several.

    Raises
    ------
    SettingsError
        If a value is not allowed.
    """
    values: dict[str, Any] = {}
    several: tuple[str, list[Any]] | None = None
    for name, _, flag in kind.flags():
        if not hasattr(options, name):
            continue
        value = getattr(options, name)
        if flag.each:
            several = name, [_value(flag, word) for word in value]
        else:
            values[name] = _value(flag, value)
    if several is None:
        return [kind.of(**values)]
    return [kind.of(**values, **{several[0]: value}) for value in several[1]]


def _value(flag: Flag, typed: Any) -> Any:
    if flag.reads is None:
        return typed
    try:
        return flag.reads(typed)
    except (SettingsError, ValueError) as error:
        raise SettingsError(f"{flag.names[0]}: {error}") from error
