"""What a pickle may ask of the computer that reads it: no more memory, and no deeper nesting, than its bytes hold.

Python's reader, and torch's, trust the lengths and numbers in a pickle. A few bytes can make the former fill a list of
gigabytes; tuples within tuples a million deep end the process as soon as they are compared or made a key, and forty
that hold the one before twice keep it busy for ever.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
from functools import cache
from itertools import repeat
from typing import NamedTuple

_DEEPEST = 200  # tuples within each other; nnU-Net's files have three
_LARGEST = 1_000_000  # values within a tuple, counted as often as they are held
_MOST = 5_000_000  # operations; checkpoints of nnU-Net have some 15,000
_MARK = -1  # in the place of what a value holds
_BITS = 40  # of what a value holds: how many values; above them, how deep its tuples are
_HELD = (1 << _BITS) - 1
_KINDS = {
    "tuple": ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    "remember": ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    "recall": ("GET", "BINGET", "LONG_BINGET"),
    "stop": ("STOP",),
}
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
        What it puts there: the mark, or a value without tuples.
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


def walk(data: bytes | mmap.mmap, at: int = 0) -> int:
    """Go through a pickle that begins at a place; returns where it ends, and raises as :func:`check_pickle`.

    Checkpoints have thousands of operations, nearly all of a few kinds. These are told by small tables, the others by
    :class:`_Step`.
    """
    stack: list[int] = []  # what each value holds
    memory: dict[int, int] = {}
    push, size, (lanes, fixed, takes, leaves) = stack.append, len(data), _lanes()
    for _ in repeat(None, _MOST):
        if at >= size:
            raise DamagedError("it ends too early")
        code = data[at]
        lane, after = lanes[code], at + 1 + fixed[code]
        if lane == _PLAIN:
            if takes[code]:
                del stack[-takes[code] :]
            push(leaves[code])
        elif lane == _REMEMBER:
            index = int.from_bytes(data[at + 1 : after], "little")
            if index > size:  # they are numbered one after the other, and a gap would be filled with memory
                raise pickle.UnpicklingError(f"it numbers a value {index}, and has {size} bytes")
            memory[index] = stack[-1] if stack else 0
        elif lane == _RECALL:
            push(memory.get(int.from_bytes(data[at + 1 : after], "little"), 0))
        elif lane == _TUPLES and len(stack) >= takes[code] and not any(stack[-takes[code] :]):
            del stack[-takes[code] :]
            push((1 << _BITS) + takes[code])
        elif lane == _STOPS:
            return after
        else:
            after = _any_step(data, at, stack, memory)
        at = after
    raise pickle.UnpicklingError(f"it has more than {_MOST:,} steps")


#: Operations that :func:`walk` carries out itself: they take some values and leave a mark, or a value without tuples;
#: number a value, or take it again, by a number of fixed length; or make a tuple of so many values without tuples.
_PLAIN, _REMEMBER, _RECALL, _TUPLES, _STOPS, _OTHER = range(6)


@cache
def _lanes() -> tuple[list[int], list[int], list[int], list[int]]:
    """Return which of these every byte is, how long its argument is, how many values it takes, and what it leaves."""
    lanes, fixed, takes, leaves = [_OTHER] * 256, [0] * 256, [0] * 256, [0] * 256
    for code, step in _steps().items():
        if step.prefix or step.lines or step.to_mark:
            continue
        fixed[code], takes[code] = step.fixed, step.takes
        if step.kind in ("remember", "recall") and step.fixed:
            lanes[code] = _REMEMBER if step.kind == "remember" else _RECALL
        elif step.kind in ("stop", "tuple"):
            lanes[code] = _STOPS if step.kind == "stop" else _TUPLES
        elif not step.kind and len(step.leaves) == 1:
            lanes[code], leaves[code] = _PLAIN, step.leaves[0]
    return lanes, fixed, takes, leaves


def _any_step(data: bytes | mmap.mmap, at: int, stack: list[int], memory: dict[int, int]) -> int:
    """Carry out the operation at a place; returns where the next one begins."""
    step = _steps().get(data[at])
    if step is None:
        raise DamagedError(f"it is damaged at byte {at}")
    end = _end(data, at + 1, step)
    if step.kind in ("remember", "recall"):
        index = _number(data[at + 1 : end]) if step.lines else len(memory)
        if step.kind == "recall":
            stack.append(memory.get(index, 0))
        elif index > len(data):
            raise pickle.UnpicklingError(f"it numbers a value {index}, and has {len(data)} bytes")
        else:
            memory[index] = stack[-1] if stack else 0
        return end
    deepest, held = _take(stack, step)
    if step.kind == "tuple":
        stack.append(_tuple_of(deepest, held))
    else:  # only one operation leaves two values: the one that doubles the last
        last = (deepest << _BITS) + held - 1
        stack += step.leaves if len(step.leaves) < 2 else (last, last)
    return end


def _tuple_of(deepest: int, held: int) -> int:
    """Return what a tuple of such values holds."""
    if deepest >= _DEEPEST:
        raise pickle.UnpicklingError(f"it holds tuples within each other more than {_DEEPEST} deep")
    if held >= _LARGEST:
        raise pickle.UnpicklingError(f"it holds a tuple of more than {_LARGEST:,} values")
    return (deepest + 1 << _BITS) + held


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


def _take(stack: list[int], step: _Step) -> tuple[int, int]:
    """Take from a stack what an operation takes; return the largest depth, and how many values are held in all."""
    deepest, held, taken = 0, 0, []
    while step.to_mark and stack and (value := stack.pop()) != _MARK:
        taken.append(value)
    taken += [stack.pop() for _ in range(min(step.takes, len(stack)))]
    for value in filter(None, taken):
        deepest = max(value >> _BITS, deepest)
        held += value & _HELD
    return deepest, held + len(taken)


def _number(argument: bytes) -> int:
    """Return the number that a value is remembered by, where it is written in digits."""
    if not argument.strip().isdigit() or len(argument) > _LONGEST:
        raise pickle.UnpicklingError(f"it numbers a value {argument[:_LONGEST]!r}")
    return int(argument)
