"""What is published agrees with the sources: whole addresses on the index, one list of dependencies, nothing for POSIX only."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
import zipfile
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nnunet.errors import ModelError
from napari_nnunet.formats.dataset.case_files import Case
from napari_nnunet.formats.dicom.output import DICOM_ENDINGS
from napari_nnunet.formats.model.bundle import inspect
from napari_nnunet.jobs.prediction.folder.case import beside
from napari_nnunet.schema.names import fault_of

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ADDRESS = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["address"]


@pytest.fixture(scope="module")
def page():
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_on_the_index_leads_to_files_that_are_there(page):
    text = page.absolute((ROOT / "README.md").read_text(encoding="utf-8"), ADDRESS)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    own = [target for target in targets if target.startswith(ADDRESS)]
    assert len(own) > 10
    assert all(target.startswith(("https://", "#")) for target in targets)
    assert all((ROOT / target.split("/main/")[1].split("#")[0]).exists() for target in own)
    assert not re.search(r"^# ", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M)


@pytest.mark.parametrize(
    ("relative", "whole"),
    [
        ("![a b](docs/x.png)", "![a b](A/raw/main/docs/x.png)"),
        ("[x](docs/x.md#part)", "[x](A/blob/main/docs/x.md#part)"),
        ("[![p](docs/x.png)](docs/x.md)", "[![p](A/raw/main/docs/x.png)](A/blob/main/docs/x.md)"),
        ("[n](https://napari.org) [m](#here)", "[n](https://napari.org) [m](#here)"),
        ("# Title\n\ntext", "text"),
    ],
)
def test_relative_links_become_whole(page, relative, whole):
    assert page.absolute(relative, "A") == whole


def test_the_recipe_for_conda_asks_for_what_the_project_asks_for():
    names = {"pytorch": "torch", "simpleitk": "simpleitk", "matplotlib-base": "matplotlib", "python-blosc2": "blosc2"}
    recipe = (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8").split("  run:\n")[1].split("\ntests:")[0]
    listed = dict(re.findall(r"- ([\w.-]+) (\S+)", recipe))
    listed.pop("python")
    wanted = [re.match(r"([\w.-]+)([^;]*)", entry).groups() for entry in PROJECT["project"]["dependencies"]]
    assert {names.get(name, name): limit for name, limit in listed.items()} == {
        name.lower(): limit.strip() for name, limit in wanted
    }


POSIX_ONLY = {
    "fork",
    "forkpty",
    "getuid",
    "geteuid",
    "mkfifo",
    "setsid",
    "killpg",
    "SIGKILL",
    "SIGSTOP",
    "SIGCONT",
    "posix_fallocate",
}
MODULES = {"fcntl", "resource", "pwd", "grp", "termios"}


def guarded(tree):
    """Names that a module asks for before it uses them (hasattr), or whose absence it catches."""
    asked = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("hasattr", "getattr"):
            asked |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
        if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h.type or h) for h in node.handlers):
            asked |= {alias.name for child in ast.walk(node) if isinstance(child, ast.Import) for alias in child.names}
        if isinstance(node, ast.If | ast.IfExp) and re.search(r"sys\.platform|os\.name", ast.unparse(node.test)):
            asked |= {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}
    return asked


def test_nothing_asks_for_what_windows_does_not_have():
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in POSIX_ONLY}
        used |= {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        } & MODULES
        used |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} & MODULES
        assert not used - guarded(tree), path


def test_no_name_of_a_file_has_a_time_with_colons():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                assert not re.search(r"strftime\([^)]*:|isoformat\(", ast.unparse(node.right)), f"{path}:{node.lineno}"


def names_of_open_files(tree):
    """Yield the lines where a temporary file may be opened by its name while it is open: Windows refuses that.

    A NamedTemporaryFile is never needed here (a TemporaryDirectory, or a TemporaryFile without a name, is). What mkstemp
    opened is closed before anybody but ``os`` is given the name.
    """
    for node in ast.walk(tree):
        called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
        if called == "NamedTemporaryFile":
            yield node.lineno
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        text = [
            ast.unparse(node) for node in ast.walk(function) if isinstance(node, ast.Expr | ast.Return | ast.Assign)
        ]
        opened = next((line for line in text if re.search(r"= (tempfile\.)?mkstemp\(", line)), None)
        if opened is None:
            continue
        handle, name = (word.strip(" ()") for word in opened.partition(" = ")[0].split(","))
        calls = sorted(
            (n for n in ast.walk(function) if isinstance(n, ast.Call)), key=lambda n: (n.lineno, n.col_offset)
        )
        for call in (ast.unparse(node) for node in calls):
            if call == f"os.close({handle})" or call.startswith(f"os.fdopen({handle}"):
                break
            if re.search(rf"\b{name}\b", call):
                yield function.lineno
                break


def test_a_temporary_file_is_never_opened_a_second_time_by_its_name():
    for path in SOURCES:
        found = list(names_of_open_files(ast.parse(path.read_text(encoding="utf-8"))))
        assert not found, f"{path}:{found}"


@pytest.mark.parametrize(
    "code",
    [
        "with tempfile.NamedTemporaryFile() as file:\n    read(file.name)",
        "file = NamedTemporaryFile(delete=False)\nread(Path(file.name))",
        "def f():\n    handle, name = tempfile.mkstemp()\n    read(name)\n    os.close(handle)",
    ],
)
def test_a_temporary_file_that_is_opened_twice_is_noticed(code):
    assert list(names_of_open_files(ast.parse(code)))
    assert not list(names_of_open_files(ast.parse(code.replace("    read(name)\n", "").replace("Named", ""))))


#: Where something is renamed to a place that is free: fresh names, or looked at before. Windows renames over nothing.
RENAMED_TO_FREE_PLACES = {
    "jobs/planning/folds.py",  # a name that is not used yet
    "jobs/dataset/manage.py",  # datasets that were looked for before
    "jobs/sharing/install.py",  # what is not there yet
    "formats/model/model_trash.py",  # a fresh place in the trash
    "formats/model/fold.py",  # likewise
    "formats/atomic.py",  # the older folder is put aside first
    "formats/large/label_image.py",  # a folder of zarr, not a file
    "formats/trash.py",  # likewise
    "formats/dataset/groups.py",  # a name that is not used yet
    "formats/dataset/new_dataset.py",  # a folder that was looked for before
}


def renames(tree):
    """Return the lines with os.rename, or with rename of a path; os.replace and Path.replace take the place of a file."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("rename", "renames")
    ]


def test_no_file_is_renamed_over_another():
    found = {
        path.relative_to(ROOT / "src" / "napari_nnunet").as_posix()
        for path in SOURCES
        if "widgets" not in path.parts and renames(ast.parse(path.read_text(encoding="utf-8")))  # docks rename buttons
    }
    assert found == RENAMED_TO_FREE_PLACES
    assert renames(ast.parse("os.rename(a, b)\npath.rename(other)\nos.replace(a, b)\npath.replace(other)")) == [1, 2]


NAMES = st.text(alphabet=st.characters() | st.sampled_from('/\\:*?"<>|. '), min_size=1, max_size=12) | st.sampled_from(
    [
        "CON",
        "aux.json",
        "com1 .nii.gz",
        "nul",
        "C:x",
        "..",
        "a.",
        "a ",
        "x:stream",
        "\\\\server\\share",
        "COM\u00b9.txt",
    ]
)


@settings(max_examples=500, deadline=None)
@given(NAMES)
def test_a_name_that_is_allowed_names_one_file_in_its_folder_on_windows(name):
    folder = PureWindowsPath("C:\\data")
    path = folder / name
    if fault_of(name) is None:
        assert (path.name, path.parent, path.drive) == (name, folder, "C:")
        assert not PureWindowsPath(name).is_reserved()
        assert not re.search(r'[<>:"/\\|?*\x00-\x1f]|[. ]$', name)


@pytest.mark.parametrize(
    "name", ["CON", "aux.json", "nul .gz", "C:x", "a:b", "..", "a.", "a ", "a\\b", "a/b", "LPT\u00b2"]
)
def test_a_name_that_windows_refuses_or_leads_elsewhere_is_not_allowed(name):
    assert fault_of(name) is not None


@pytest.mark.parametrize(
    "entry", ["C:/x/plans.json", "..\\x\\plans.json", "\\\\server\\share\\plans.json", "a/CON/plans.json", "a/b:c"]
)
def test_what_a_zip_holds_stays_in_its_folder_on_windows(tmp_path, entry):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr(entry, "{}")
    with pytest.raises(ModelError, match="was refused"):
        inspect(tmp_path / "model.zip")


def test_outputs_lie_beside_each_other_on_windows():
    case = Case(name="sub/anna", files=())
    out = PureWindowsPath("D:\\out\\sub\\anna.nii.gz")
    named = {str(beside(case, out, ending)) for ending in (".npz", *DICOM_ENDINGS.values())}
    assert named == {"D:\\out\\sub\\anna.npz", "D:\\out\\sub\\anna.dcm", "D:\\out\\sub\\anna.rtstruct.dcm"}
