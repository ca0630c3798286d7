"""Pages of the site that are made from the program when it is built: what Python offers, and every message.

mkdocs calls :func:`on_files` (``hooks`` in mkdocs.yml).
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "src" / "napari_nnunet"
#: Errors that a user may see, and what they are about.
ABOUT = {
    "DatasetError": "Datasets, cases, labels",
    "ImageError": "Images and arrays",
    "PlanError": "Plans",
    "ModelError": "Models and checkpoints",
    "ResourceError": "Memory, disk, devices, libraries",
    "TrainingError": "Trainings",
    "SettingsError": "Settings and arguments",
    "NotReadyError": "What a dock still needs",
}


def python_page() -> str:
    """Return the public names of the package with their signatures and docstrings."""
    sys.path.insert(0, str(SOURCE.parent))
    import napari_nnunet

    parts = [
        "# Python\n\nEverything is imported from `napari_nnunet`; keywords are those of the [command line](cli.md).\n"
    ]
    for name in sorted(n for n in napari_nnunet.__all__ if not n.startswith("_")):
        thing = getattr(napari_nnunet, name)
        first, _, rest = (inspect.getdoc(thing) or "").partition("\n\n")
        signature = "" if inspect.isclass(thing) else _signature(name, thing)
        parts.append(f"## {name}\n\n{signature}{' '.join(first.split())}\n")
        if rest.strip():
            parts.append(f"```text\n{rest.strip()}\n```\n")
    return "\n".join(parts)


def _signature(name: str, thing: Any) -> str:
    arguments = ",\n    ".join(re.sub(r"<.*?>", "...", str(p)) for p in inspect.signature(thing).parameters.values())
    return f"```python\n{name}(\n    {arguments},\n)\n```\n\n"


def messages_page() -> str:
    """Return every message of the program: what came, what was allowed, what to do, with … for what is filled in."""
    found: dict[str, set[tuple[str, str, str]]] = {name: set() for name in ABOUT}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in found and node.args:
                ways = {k.arg: _text(k.value) for k in node.keywords if k.arg in ("shell", "window")}
                text = _text(node.args[0])
                if len(text) > len("…  …"):
                    found[node.func.id].add((text, ways.get("shell", ""), ways.get("window", "")))
    parts = [
        "# Messages\n\nWhat the program says when something cannot be done, with cause and cure; `…` is filled in. "
        "Search this page for words of the message.\n"
    ]
    for name, about in ABOUT.items():
        parts.append(f"## {about}\n")
        for text, shell, window in sorted(found[name]):
            ways = [f" *In {place}:* {way}" for place, way in (("a shell", shell), ("napari", window)) if way]
            parts.append(f"- {text}{''.join(ways)}")
        parts.append("")
    return "\n".join(parts)


def _text(node: ast.expr) -> str:
    """Return the text of an f-string or of texts that are added up, fit for Markdown."""
    match node:
        case ast.Constant(value=str() as value):
            return _plain(value)
        case ast.JoinedStr(values=values):
            return "".join(_text(part) for part in values)
        case ast.BinOp(left=left, right=right):
            return _text(left) + _text(right)
        case ast.IfExp(body=body):
            return _text(body)
        case _:
            return "…"


def _plain(text: str) -> str:
    """Return a text whose signs mean nothing in Markdown."""
    return re.sub(r"([<>*_`\[\]])", r"\\\1", text.replace("\n", " "))


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to those that lie in docs/."""
    from mkdocs.structure.files import File

    for name, text in (("python.md", python_page()), ("messages.md", messages_page())):
        files.append(File.generated(config, name, content=text))
    return files
