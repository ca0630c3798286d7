"""What a pickle may ask of the computer that reads it: no more memory, and no deeper nesting, than its bytes hold.

Python's reader, and torch's, trust the lengths and numbers in a pickle. A few bytes can make the former fill a list of
gigabytes, and tuples within tuples a million deep end the process as soon as they are compared or made a key.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
from functools import cache
from typing import NamedTuple

_DEEPEST = 200  # tuples within each other; nnU-Net's files have three
_MARK = -1  # in the place of a depth
_KINDS = {
    "tuple": ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    "remember": ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    "recall": ("GET", "BINGET", "LONG_BINGET"),
    "stop": ("STOP",),
}
_TUPLE_BYTES = (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
_FEW_TUPLES = 5000  # within each other, they can be made keys even where threads have little memory of their own
_PREFIXES = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
             pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8}  # fmt: skip

_LONGEST = 20  # digits


class _Step(NamedTuple):
    """What an operation does.

    Parameters
    ----------
    kind : str
        What this module has to know of it; empty for most.
    fixed, prefix, lines : int
        Bytes of its argument; or bytes of the length before it; or lines.
    takes : int
        Values it takes from the stack, those before a mark if it wants one.
    to_mark : bool
        Whether it takes all down to the last mark.
    leaves : tuple of int
        Depths of what it puts there.
    """

    kind: str
    fixed: int
    prefix: int
    lines: int
    takes: int
    to_mark: bool
    leaves: tuple[int, ...]


@cache
def _steps() -> dict[int, _Step]:
    """Return all operations by their byte."""
    return {ord(operation.code): _step(operation) for operation in pickletools.opcodes}


def _step(operation: pickletools.OpcodeInfo) -> _Step:
    name, before = operation.name, operation.stack_before
    size = 0 if operation.arg is None else operation.arg.n
    to_mark = pickletools.stackslice in before
    return _Step(
        kind=next((kind for kind, names in _KINDS.items() if name in names), ""),
        fixed=max(size, 0),
        prefix=_PREFIXES.get(size, 0),
        lines=0 if size != pickletools.UP_TO_NEWLINE else 2 if name in ("GLOBAL", "INST") else 1,
        takes=before.index(pickletools.markobject) if to_mark else len(before),
        to_mark=to_mark,
        leaves=tuple(_MARK if made is pickletools.markobject else 0 for made in operation.stack_after),
    )


class DamagedError(pickle.UnpicklingError):
    """A pickle that is not whole."""


def check_pickle(data: bytes) -> None:
    """Refuse a pickle that would take memory or depth beyond what it holds; nothing is made of it.

    Parameters
    ----------
    data : bytes
        All of it, and perhaps more.

    Raises
    ------
    UnpicklingError
        If it is such a one, or damaged.
    """
    walk(data)


def is_shallow(data: bytes) -> bool:
    """Whether, at a glance, a pickle has too few tuples for nesting that does harm; those of nnU-Net have."""
    return sum(map(data.count, _TUPLE_BYTES)) < _FEW_TUPLES


def walk(data: bytes | mmap.mmap, at: int = 0) -> int:
    """Go through a pickle that begins at a place; returns where it ends, and raises as :func:`check_pickle`."""
    steps = _steps()
    stack: list[int] = []  # how deep the tuples in each value are nested
    memory: dict[int, int] = {}
    while at < len(data):
        step = steps.get(data[at])
        if step is None:
            raise DamagedError(f"it is damaged at byte {at}")
        argument = data[at + 1 : (at := _end(data, at + 1, step))]
        if step.kind == "remember":
            index = _number(argument, step) if argument else len(memory)
            if index > len(data):  # they are numbered one after the other, and a gap would be filled with memory
                raise pickle.UnpicklingError(f"it numbers a value {index}, and has {len(data)} bytes")
            memory[index] = stack[-1] if stack else 0
            continue
        if step.kind == "stop":
            return at
        deepest = _take(stack, step)
        if step.kind == "tuple":
            if deepest >= _DEEPEST:
                raise pickle.UnpicklingError(f"it holds tuples within each other more than {_DEEPEST} deep")
            stack.append(deepest + 1)
        elif step.kind == "recall":
            stack.append(memory.get(_number(argument, step), 0))
        else:  # only one operation leaves two values: the one that doubles the last
            stack += step.leaves if len(step.leaves) < 2 else (deepest, deepest)
    raise DamagedError("it ends too early")


def _end(data: bytes | mmap.mmap, at: int, step: _Step) -> int:
    """Return where an operation's argument that begins at a place ends."""
    end = at + step.fixed
    if step.prefix:
        end = at + step.prefix + int.from_bytes(data[at : at + step.prefix], "little")
    for _ in range(step.lines):
        end = data.find(b"\n", end) + 1 or len(data) + 1
    if end > len(data):
        raise DamagedError(f"it claims {end - at} bytes at byte {at}, and has {len(data) - at}")
    return end


def _take(stack: list[int], step: _Step) -> int:
    """Take from a stack what an operation takes; return the largest depth."""
    deepest = 0
    while step.to_mark and stack and (depth := stack.pop()) != _MARK:
        deepest = max(depth, deepest)
    for _ in range(min(step.takes, len(stack))):
        deepest = max(stack.pop(), deepest)
    return deepest


def _number(argument: bytes, step: _Step) -> int:
    """Return the number that a value is remembered by."""
    if not step.lines:
        return int.from_bytes(argument, "little")
    if not argument.strip().isdigit() or len(argument) > _LONGEST:
        raise pickle.UnpicklingError(f"it numbers a value {argument[:_LONGEST]!r}")
    return int(argument)
