"""What every verb takes today, in words; as a program, it writes them down: flags.json is what was promised.

Run ``python tests/cli/flags_today.py`` after a flag was added, or changed on purpose, and look at the difference.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pydantic_core import PydanticUndefined

from napari_nnunet.cli import build_parser
from napari_nnunet.cli.verbs import VERBS, named

PROMISED = Path(__file__).parent / "flags.json"
_COUNTS = {None: "one word", 0: "no word", "+": "one word or more", "*": "any number of words", "?": "a word or none"}


def _parsers(verb: str) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of a verb under each of its spellings."""
    actions = build_parser([named(verb)])._actions
    return next(action for action in actions if isinstance(action.choices, dict)).choices


def _said(action: argparse.Action, default: object) -> str:
    """Return what follows a flag, which words are taken, and what holds without it."""
    words = _COUNTS.get(action.nargs, f"{action.nargs} words")
    among = f" of {', '.join(map(str, action.choices))}" if action.choices else ""
    without = "required" if action.required else f"default {default!r}" if default is not None else "no default"
    return f"{words}{among}; {without}"


def flags_of(verb: str) -> dict[str, str]:
    """Return what a verb says of each of its flags, and of the words without a flag by their names."""
    fields = named(verb).kind.model_fields
    found = {}
    for action in _parsers(verb)[verb]._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        field = fields.get(action.dest)
        default = None if field is None else field.get_default(call_default_factory=True)
        default = None if default is PydanticUndefined else default
        default = default.as_posix() if isinstance(default, Path) else default
        for flag in action.option_strings or [f"<{action.dest}>"]:
            found[flag] = _said(action, default)
    return dict(sorted(found.items()))


def flags_of_all() -> dict[str, dict[str, str]]:
    """Return the same of every verb, in each of its spellings."""
    return {name: flags_of(name) for name in sorted({name for verb in VERBS for name in _parsers(verb.name)})}


def differences(promised: dict[str, dict[str, str]], today: dict[str, dict[str, str]]) -> list[str]:
    """Return a line for everything that is not as it was promised: which verb, which flag, what was, what is."""
    return [
        f"{verb} {flag}: was '{promised.get(verb, {}).get(flag, 'not there')}', is '{today.get(verb, {}).get(flag, 'not there')}'"
        for verb in sorted(promised.keys() | today.keys())
        for flag in sorted(promised.get(verb, {}).keys() | today.get(verb, {}).keys())
        if promised.get(verb, {}).get(flag) != today.get(verb, {}).get(flag)
    ]


if __name__ == "__main__":
    PROMISED.write_text(json.dumps(flags_of_all(), indent=1) + "\n", encoding="utf-8")
