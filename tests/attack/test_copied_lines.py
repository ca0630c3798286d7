"""What a recipe says as a command or as Python is pasted into a shell: names in it, of other people's, add no line to it."""

from __future__ import annotations

import ast
import json
import shlex

import pytest

from napari_nnunet.formats.results.recipe import STYLES, read_recipe

_MEMBER = {"model": "m", "folder": "f", "trainer": "t", "plans": "p", "configuration": "c", "folds": ["0"], "checkpoint": "x.pth",
           "step": 0.5, "mirror_axes": [0], "backend": "torch", "precision": "float32", "channels": ["CT", "MR"]}  # fmt: skip
BREAKS = ("\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028")
_ORDER = "touch executed #"


def recipes(line_break):
    """Give recipes with an order of their own behind a line break, wherever a text stands."""
    order = f"a{line_break}{_ORDER}"
    for key in ("model", "folder", "trainer", "plans", "configuration", "checkpoint", "backend", "precision", "reader"):
        yield key, {**_MEMBER, key: order}
    yield "channels", {**_MEMBER, "channels": ["CT", order]}
    yield "ending", {**_MEMBER, "file_ending": order}
    yield "folds", {**_MEMBER, "folds": [order]}
    yield "layers", {**_MEMBER, "layers": ["one", order]}
    yield "times", {**_MEMBER, "time_points": [0, order]}
    yield "spacing", {**_MEMBER, "spacing": [order, 1, 1]}
    yield "file", {**_MEMBER, "postprocessing": [{"labels_or_regions": [1]}], "postprocessing_file": order}
    yield "method", {"members": [_MEMBER, _MEMBER], "method": order}


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_a_recipe_says_no_line_of_its_own(tmp_path, line_break):
    for key, recipe in recipes(line_break):
        (tmp_path / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
        found = read_recipe(tmp_path)
        words = shlex.split(STYLES["command"](found), comments=True)
        assert not {"touch", "executed"} & set(words), key
        said = ast.walk(ast.parse(STYLES["python"](found)))
        assert not [node.id for node in said if isinstance(node, ast.Name) and node.id in ("touch", "executed")], key
