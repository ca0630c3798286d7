"""Words of a command line that ask for a request: what a detached process is started with."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from napari_nnunet.schema.requests.option import Flag, Request


def is_switch(field: FieldInfo, flag: Flag) -> bool:
    """Whether a flag stands alone, without a value."""
    return bool in types_of(field.annotation) or flag.sets is not True


def types_of(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union but None."""
    if get_origin(annotation) in (None, Literal, tuple, dict):
        return (annotation,)
    return tuple(kind for kind in get_args(annotation) if kind is not NoneType)


def words(requests: Sequence[Request]) -> list[str]:
    """Return what to type for requests that differ in the field that takes several values; the inverse of ``read``."""
    first = requests[0]
    positions: list[str] = []
    flags: list[str] = []
    for name, field, flag in type(first).flags():
        value = getattr(first, name)
        if flag.each:
            written = [str(getattr(request, name)) for request in requests]
        elif value is None or (not field.is_required() and value == field.get_default(call_default_factory=True)):
            continue
        elif is_switch(field, flag):
            written = []
        elif isinstance(value, dict):
            written = [f"{key}={entry}" for key, entry in value.items()]
        else:
            written = [str(entry) for entry in value] if isinstance(value, tuple) else [str(value)]
        if flag.positional:
            positions += written
        else:
            flags += [flag.names[0], *written]
    return [*positions, *flags]
