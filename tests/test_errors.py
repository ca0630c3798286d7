"""What failures of other libraries become."""

from __future__ import annotations

import ast
import errno
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import napari_nnunet
from napari_nnunet.errors import (
    DatasetError,
    InternalError,
    ModelError,
    ResourceError,
    for_people,
    is_out_of_memory,
    of_cases,
    out_of_memory,
    some,
)
from napari_nnunet.events import CaseFailed, drain


def _torch_on_a_cpu():
    torch.empty(1 << 58, dtype=torch.uint8)


def _numpy():
    np.empty(1 << 58, dtype=np.uint8)


def _python():
    bytearray(1 << 62)


@pytest.mark.parametrize("allocate", [_torch_on_a_cpu, _numpy, _python])
def test_memory_that_a_library_misses_here_is_recognised(allocate):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate()
    assert is_out_of_memory(caught.value)
    assert out_of_memory(caught.value).message.startswith("Not enough main memory")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of ..."
            ),
            "Not enough GPU memory: another 21.5 GB were needed. Close other programs.",
        ),
        (
            RuntimeError(
                "MPS backend out of memory (MPS allocated: 9 GB). Tried to allocate 256.00 MB on private pool."
            ),
            "Not enough GPU memory: another 0.3 GB were needed. Close other programs.",
        ),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 2500000000 bytes."),
            "Not enough main memory: another 2.5 GB were needed. Close other programs.",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "Not enough GPU memory. Close other programs.",
        ),
        (
            RuntimeError("Exception from src/inference/src/cpp/core.cpp:104: std::bad_alloc"),
            "Not enough main memory. Close other programs.",
        ),
        (
            RuntimeError("[GPU] CL_OUT_OF_RESOURCES exception."),
            "Not enough GPU memory. Close other programs.",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Not enough main memory. Close other programs."),
    ],
)
def test_memory_that_a_library_misses_elsewhere_is_recognised(error, sentence):
    assert is_out_of_memory(error)
    assert out_of_memory(error).message == sentence


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        KeyError("out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
        ModelError("There is not enough memory of this model."),
    ],
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(error):
    assert not is_out_of_memory(error)


def test_every_job_that_runs_out_of_memory_raises_an_error_for_people():
    def job():
        yield from ()
        _torch_on_a_cpu()

    with pytest.raises(ResourceError, match="another 288,230,376.2 GB were needed") as caught:
        drain(job())
    assert isinstance(caught.value.__cause__, RuntimeError)


ROOMS = ("schema", "formats", "engine", "processes", "jobs")
_ONE_PLACE = re.compile(r"(?<![\w'-])--?[a-zA-Z]\w+|\b[Dd]ock\b|'(plan|preprocess|plan_and_preprocess|train|predict)'")


def _messages():
    """Yield place, positional words, and those for a shell and for a window, of every error that is raised."""
    source = Path(napari_nnunet.__file__).parent
    for path in sorted(p for room in ROOMS for p in (source / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name.endswith("Error") or name in ("memory_told", "out_of_memory"):
                words = [p.value for arg in node.args for p in ast.walk(arg) if isinstance(p, ast.Constant)]
                ways = {key.arg: ast.unparse(key.value) for key in node.keywords}
                where = f"{path.relative_to(source)}:{node.lineno}"
                yield where, " ".join(word for word in words if isinstance(word, str)), ways


def test_what_only_a_shell_or_only_a_window_can_do_is_never_part_of_the_message_itself():
    found = list(_messages())
    assert len(found) > 100
    assert [(where, text) for where, text, _ in found if _ONE_PLACE.search(text)] == []
    assert [where for where, _, ways in found if "dock" in ways.get("shell", "").lower()] == []
    assert [where for where, _, ways in found if re.search(r"[ '(]--?[a-zA-Z]\w+", ways.get("window", ""))] == []


def test_an_error_says_what_to_do_in_a_shell_and_in_a_window():
    error = ModelError("No fold is validated.", shell="Validate with --val.", window="Train one in the Train dock.")
    for same in (error, pickle.loads(pickle.dumps(error))):  # as it comes from a worker process
        assert str(same) == same.message == "No fold is validated. Validate with --val."
        assert same.in_window == "No fold is validated. Train one in the Train dock."


def test_errors_of_many_cases_keep_both_ways():
    failures = {"b": ResourceError("Full.", shell="Use -np.", window="Press it."), "a": ResourceError("Empty.")}
    error = of_cases(failures, 3, "measured")
    assert error.message == "2 of 3 cases could not be measured:\n  a: Empty.\n  b: Full. Use -np."
    assert error.in_window == "2 of 3 cases could not be measured:\n  a: Empty.\n  b: Full. Press it."
    assert isinstance(error, ResourceError)
    event = CaseFailed.of("b", failures["b"], 0, 3)
    assert (event.message, event.in_window) == ("Full. Use -np.", "Full. Press it.")


def test_a_message_shows_the_ends_of_a_value_of_any_length():
    error = DatasetError(f"a.json: 'name' is {'x' * 100_000}; it must be short.", shell="Run 'b'.")
    assert len(error.message) < 1_600
    assert error.message.startswith("a.json: 'name' is xxx") and error.message.endswith("it must be short. Run 'b'.")
    assert " ... " in error.in_window


def test_a_name_too_long_for_the_disk_is_no_fault_of_the_program():
    with pytest.raises(OSError, match="too long") as caught:
        Path("x" * 5000).stat()
    told = for_people(caught.value)
    assert told.message == f"No file can have a name as long as '{'x' * 60}'... Give a shorter one."
    assert not isinstance(told, InternalError)


def test_what_a_system_says_of_files_is_no_fault_of_the_program(tmp_path):
    for error in (FileNotFoundError(errno.ENOENT, "x", "/a/b.nii"), OSError(errno.EIO, "x", "/a/b.nii"),
                  PermissionError(errno.EACCES, "x", "/a/b.nii"), OSError(errno.ENOSPC, "x", "/a/b.nii")):  # fmt: skip
        told = for_people(error)
        assert isinstance(told, ResourceError)
        assert told.message.startswith("/a/b.nii ")


def test_a_path_with_a_zero_is_told_as_such(tmp_path):
    with pytest.raises(ValueError, match="embedded null") as caught:
        (tmp_path / "a\0b").open()
    assert "which no file name can have" in for_people(caught.value).message


def test_a_terminal_obeys_no_message():
    error = DatasetError("a.json: '\x1b[31mred\x07\r' is no name.\nChange it.")
    assert error.message == r"a.json: '\x1b[31mred\x07\r' is no name." + "\nChange it."


def test_what_calls_itself_without_end_is_told_as_a_fault_and_not_as_a_nested_file():
    assert isinstance(for_people(RecursionError("maximum recursion depth exceeded")), InternalError)


def test_what_a_list_in_a_sentence_leaves_out_is_counted():
    assert some(["a", "b"]) == "a, b" and some([], 3) == ""
    assert some(range(1, 9)) == "1, 2, 3, 4, 5 and 3 more"
    assert some(["a", "b", "c"], 2) == "a, b and 1 more"
