"""docs/cli.md, the part that lists every flag: ``python -m napari_nnunet.cli.reference docs/cli.md`` writes it anew."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from napari_nnunet.cli.flags import choices_of, default_of, sentence_of
from napari_nnunet.cli.shell import ShellRequest
from napari_nnunet.cli.verbs import UNUSED, VERBS
from napari_nnunet.schema.requests.option import Flag, Request
from napari_nnunet.schema.requests.words import is_switch

MARK = "<!-- generated: python -m napari_nnunet.cli.reference docs/cli.md -->\n"


def reference() -> str:
    """Return a section per verb, with a table of its flags."""
    parts = ["## Flags of every verb\n\n" + table(ShellRequest)]
    for verb in VERBS:
        unused = UNUSED.get(verb.name, ())
        note = f"\n{', '.join(f'`{flag}`' for flag in unused)}: accepted, not needed.\n" if unused else ""
        parts.append(f"## {verb.name}\n\n{verb.description}\n\n{table(verb.kind)}{note}")
    return "\n".join(parts)


def table(kind: type[Request]) -> str:
    """Return the flags of a request as a table."""
    rows = []
    for _, field, flag in kind.flags():
        value = "" if flag.positional or is_switch(field, flag) else f" {_placeholder(field, flag)}"
        names = ", ".join(f"`{name}{value}`" for name in flag.names)
        default = "required" if field.is_required() else default_of(field, flag)
        rows.append(f"| {names} | {sentence_of(field, flag)} | {default} |".replace("<", "&lt;"))
    return "\n".join(["| flag | meaning | default |", "|---|---|---|", *rows]) + "\n" if rows else "It has no flags.\n"


def _placeholder(field: FieldInfo, flag: Flag) -> str:
    choices = choices_of(field, flag)
    return "\\|".join(choices) if choices else " ".join(flag.axes or (flag.metavar or "",))


def write(path: Path) -> None:
    """Replace what follows the mark in a file."""
    kept, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    path.write_text(kept + (mark or MARK) + "\n" + reference(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
