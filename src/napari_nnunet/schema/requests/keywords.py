"""Python keywords of a request: a function's signature and docstring list them, but they are written once."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic.fields import FieldInfo

from napari_nnunet.schema.requests.option import Request

F = TypeVar("F", bound=Callable[..., Any])
CHANGES = "    **changes\n"


def keywords(kind: type[Request]) -> Callable[[F], F]:
    """Return a decorator for functions that take ``**changes``: fields of a request that are not named otherwise.

    Parameters
    ----------
    kind : type
        The request. Fields that the function names as parameters of its own are left out.
    """

    def describe(function: F) -> F:
        own = inspect.signature(function)
        fields = {name: field for name, field in kind.model_fields.items() if name not in own.parameters}
        fixed = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        more = [_parameter(name, field) for name, field in fields.items()]
        function.__signature__ = own.replace(parameters=[*fixed, *more])  # type: ignore[attr-defined]
        rows = "".join(_row(name, field) for name, field in fields.items())
        function.__doc__ = (function.__doc__ or "").replace(CHANGES, rows, 1)
        return function

    return describe


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.annotation)


def _row(name: str, field: FieldInfo) -> str:
    optional = "" if field.is_required() else ", optional"
    text = textwrap.fill(field.description or name, 112, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return f"    {name} : {type_text(field.annotation)}{optional}\n{text}\n"


def type_text(annotation: Any) -> str:
    """Return a type as numpydoc writes it: ``int``, ``{"soft", "hard"}``, ``tuple of str``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "{" + ", ".join(f'"{value}"' for value in arguments) + "}"
    if origin is tuple:
        return f"tuple of {type_text(arguments[0])}"
    if origin is dict:
        return f"dict of {type_text(arguments[0])} to {type_text(arguments[1])}"
    if arguments:
        return " or ".join(type_text(kind) for kind in arguments if kind is not type(None))
    return getattr(annotation, "__name__", str(annotation))
