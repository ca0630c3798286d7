"""References to jobs that are imported where they run."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path

import pytest

from napari_nnunet.events import drain
from napari_nnunet.widgets import frame
from napari_nnunet.widgets.frame.worker import lazy

WIDGETS = Path(frame.__file__).parents[1]


def _imported_for_types(tree):
    return {
        f"{node.module}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _references():
    for path in sorted(WIDGETS.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                function = node.value.func
                if isinstance(function, ast.Name) and function.id == "lazy":
                    yield pytest.param(node, _imported_for_types(tree), id=f"{path.stem}-{node.targets[0].id}")


@pytest.mark.parametrize(("node", "typed"), _references())
def test_a_reference_names_the_job_that_type_checkers_see(node, typed):
    reference = node.value.args[0].value
    module, _, name = reference.partition(":")
    assert node.targets[0].id == name
    assert reference in typed
    assert callable(getattr(import_module(module), name))


def test_nothing_is_imported_before_the_first_step(tmp_path, monkeypatch):
    (tmp_path / "late_job.py").write_text(
        "from napari_nnunet.events import Stage\n"
        "def work(a, *, b):\n"
        "    yield Stage(name='working')\n"
        "    return a + b\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    job = lazy("late_job:work")(1, b=2)
    assert "late_job" not in sys.modules
    events = []
    assert drain(job, events.append) == 3
    assert [event.name for event in events] == ["working"]


def test_a_job_that_was_never_begun_is_closed_without_being_imported():
    job = lazy("no_such_module:work")()
    job.close()
    with pytest.raises(StopIteration):
        next(job)
