"""Names that a package defines and nothing in it uses: what only a test calls, or nobody, is dead."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

#: What these decorate has to be used by somebody; other decorators hand a function on (verbs, validators, signals).
PLAIN = {"cache", "cached_property", "classmethod", "contextmanager", "lru_cache", "overload", "property", "setter",
         "staticmethod", "dataclass", "final"}  # fmt: skip
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class _Module:
    """What a module says: its definitions, what it reads, and what it takes from others."""

    tops: dict[str, tuple[int, Counter[str]]] = field(default_factory=dict)
    members: list[tuple[str, int, Counter[str]]] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)
    attributes: Counter[str] = field(default_factory=Counter)
    words: set[str] = field(default_factory=set)
    taken: list[tuple[str, str, str]] = field(default_factory=list)  # module, name, what it is called here


def dead_names(texts: Mapping[str, str], also: str = "") -> list[str]:
    """Return ``module:line name`` of functions, classes, constants, methods and own attributes that nothing uses.

    Parameters
    ----------
    texts : mapping of str to str
        Source by the module's dotted name.
    also : str
        What else refers to names, such as a manifest; every word of it counts.
    """
    modules = {name: _read(text) for name, text in texts.items()}
    words = set(re.findall(r"\w+", also)).union(*(module.words for module in modules.values()))
    attributes = sum((module.attributes for module in modules.values()), Counter[str]())
    taken = {
        (home, name)
        for module in modules.values()
        for home, name, here in module.taken
        if module.names[here] or here in module.words
    }
    found = []
    for home, module in modules.items():
        for name, (line, own) in module.tops.items():
            used = module.names[name] > own[name] or attributes[name] > own[name] or (home, name) in taken
            if not used and name not in words:
                found.append(f"{home}:{line} {name}")
        for name, line, own in module.members:
            if attributes[name] <= own[name] and name not in words:
                found.append(f"{home}:{line} {name}")
    return found


def _read(text: str) -> _Module:
    module, tree = _Module(), ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module.taken += [(node.module or "", alias.name, alias.asname or alias.name) for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module.words.add(node.value.rpartition(":")[2])  # "package.module:name", or a name alone
        elif isinstance(node, ast.MatchClass):
            module.attributes.update(node.kwd_attrs)
    module.names, module.attributes = _loads(tree, ast.Name), module.attributes + _loads(tree, ast.Attribute)
    for name, node in _defined(tree):
        module.tops[name] = node.lineno, _loads(node, ast.Name) + _loads(node, ast.Attribute)
    for kind in ast.walk(tree):
        if isinstance(kind, ast.ClassDef):
            module.members += [
                (name, node.lineno, _loads(node, ast.Attribute))
                for name, node in (*_defined(kind, fields=False), *_own_attributes(kind))
            ]
    return module


def _loads(node: ast.AST, kind: type[ast.Name | ast.Attribute]) -> Counter[str]:
    """Count the names, or the attributes, that are read."""
    found = (x for x in ast.walk(node) if isinstance(x, kind) and isinstance(x.ctx, ast.Load))
    return Counter(x.id if isinstance(x, ast.Name) else x.attr for x in found)


def _defined(parent: ast.Module | ast.ClassDef, *, fields: bool = True) -> Iterator[tuple[str, ast.stmt]]:
    """Yield what a module or a class defines; fields of a class may be what a file says, and are left out."""
    for node in parent.body:
        if isinstance(node, _FUNCTION | ast.ClassDef):
            if not node.name.startswith("__") and all(_is_plain(one) for one in node.decorator_list):
                yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign) and fields:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for x in ast.walk(target):
                    if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store) and not x.id.startswith("__"):
                        yield x.id, node


def _own_attributes(kind: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Yield the attributes that a class gives its objects."""
    for x in ast.walk(kind):
        if isinstance(x, ast.Attribute) and isinstance(x.ctx, ast.Store) and ast.unparse(x.value) == "self":
            yield x.attr, x


def _is_plain(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).partition("(")[0].rpartition(".")[2] in PLAIN
