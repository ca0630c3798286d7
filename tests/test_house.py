"""The house: what loads what, the manifest, the size of things."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml
from npe2 import PluginManifest

from dead_names import dead_names

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "napari_nnunet"
LONGEST_FUNCTION = 50  # lines without docstring
LONGEST_MODULE = 400
#: Longer than that today; a number here only ever gets smaller.
LONGER = {"resources/segment.py": 440}  # it leaves with a model, as one file
MOST_MODULES = 12  # in one folder
LATE_IMPORTS = 60  # within functions; likewise
LONGEST_TEST_FILE = 400


def _loaded(code: str) -> set[str]:
    check = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import napari_nnunet",
        "from napari_nnunet.cli import build_parser; build_parser().format_help()",
        "from napari_nnunet import load_model, read_volume",
    ],
)
def test_importing_and_help_load_neither_torch_nor_a_viewer(code):
    assert not _loaded(code) & {"torch", "openvino", "napari", "qtpy", "magicgui"}


def test_reading_by_itk_loads_nothing_that_hardly_any_file_needs():
    """Planning asks ITK whether it can read the first image; nibabel alone took a tenth of the time of a plan."""
    assert not _loaded("import napari_nnunet.formats.images.itk") & {"nibabel", "scipy", "torch"}


def test_saying_the_version_does_not_read_the_installation():
    assert "email" not in _loaded("import napari_nnunet; napari_nnunet.__version__")


def test_predicting_needs_no_viewer():
    assert not _loaded(
        "import napari_nnunet.jobs.prediction.predict_files, napari_nnunet.api.prediction, napari_nnunet.api.training"
    ) & {
        "napari",
        "qtpy",
        "magicgui",
    }


@pytest.mark.gui
def test_the_docks_load_no_torch():
    docks = (
        "prediction.segment_dock", "dataset.cases_dock", "planning.plan_dock", "training.train_dock",
        "choosing.ensemble_dock", "choosing.compare_dock", "sharing.models_dock", "doctor_dock", "files.reader",
    )  # fmt: skip
    code = f"import {', '.join(f'napari_nnunet.widgets.{name}' for name in docks)}"
    assert not _loaded(code) & {"torch", "openvino"}


def test_the_public_names_are_there_and_others_are_explained():
    import napari_nnunet

    for name in napari_nnunet.__all__:
        assert getattr(napari_nnunet, name) is not None
    assert set(dir(napari_nnunet)) == set(napari_nnunet.__all__)
    with pytest.raises(AttributeError, match="it has Geometry"):
        _ = napari_nnunet.nonsense


def test_the_manifest_at_the_top_is_the_one_in_the_package():
    assert (ROOT / "napari.yaml").read_text(encoding="utf-8") == (SOURCE / "napari.yaml").read_text(encoding="utf-8")
    assert PluginManifest.from_distribution("napari-nnunet").display_name == "nnU-Net"


def test_preferences_are_described_to_the_end_of_the_sentence():
    contributions = yaml.safe_load((SOURCE / "napari.yaml").read_text(encoding="utf-8"))["contributions"]
    options = [entry for part in contributions["configurations"].values() for entry in part["properties"].values()]
    assert all(entry["title"] and entry["description"].endswith(".") for entry in options)  # " #" begins a comment


def test_everything_the_manifest_mentions_exists():
    manifest = yaml.safe_load((SOURCE / "napari.yaml").read_text(encoding="utf-8"))
    contributions = manifest["contributions"]
    commands = {command["id"]: command for command in contributions["commands"]}
    for command in commands.values():
        module, name = command["python_name"].split(":")
        assert hasattr(importlib.import_module(module), name), command["id"]
    used = [
        entry["command"] for kind in ("widgets", "sample_data", "readers", "writers") for entry in contributions[kind]
    ]
    submenus = {entry["id"] for entry in contributions["submenus"]}
    for menu, entries in contributions["menus"].items():
        assert menu in submenus or menu.startswith("napari/layers/")
        used += [entry["command"] for entry in entries if "command" in entry]
        assert all(entry["submenu"] in submenus for entry in entries if "submenu" in entry)
    assert set(used) <= set(commands)
    suffixes = {command.partition(".")[2] for command in commands}
    assert not suffixes & {entry["key"] for entry in contributions["sample_data"]}
    icon = manifest["icon"].partition(":")[2]
    assert (SOURCE / "resources" / icon).is_file()


def test_the_sample_model_is_small():
    files = [p for p in (SOURCE / "resources" / "sample_model").rglob("*") if p.is_file()]
    assert 0 < sum(p.stat().st_size for p in files) < 1_000_000


def test_functions_and_modules_stay_short():
    long = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > LONGER.get(path.relative_to(SOURCE).as_posix(), LONGEST_MODULE):
            long.append(f"{path.name}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                documented = ast.get_docstring(node, clean=False)
                body = node.end_lineno - node.lineno - len((documented or "").splitlines())
                if body > LONGER.get(f"{path.relative_to(SOURCE).as_posix()}:{node.name}", LONGEST_FUNCTION):
                    long.append(f"{path.name}: {node.name} has {body} lines")
    assert not long


def test_a_folder_shows_what_is_in_it_at_a_glance():
    counts = {folder: len([p for p in folder.glob("*.py") if p.name != "__init__.py"]) for folder in SOURCE.rglob("*")}
    assert not {folder.name: count for folder, count in counts.items() if count > MOST_MODULES}


#: Rooms whose tests lie elsewhere: segment.py, a program of its own, is run by tests/jobs/sharing/test_carry.py.
WITHOUT_TESTS = {"resources"}
#: Tests of no room: the whole beside nnU-Net, against recorded figures, attacked, and with what people have.
OF_NO_ROOM = {"attack", "live", "parity", "reports"}


def test_every_room_has_its_tests_and_every_folder_of_tests_its_room():
    rooms = {path.parent.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if path.name != "__init__.py"}
    tests = ROOT / "tests"
    tested = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")}
    assert rooms - WITHOUT_TESTS == tested - OF_NO_ROOM


def test_a_room_says_in_its_init_what_lives_there():
    said = {path.parent: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("__init__.py")}
    assert not {room.name for room, module in said.items() if len(ast.get_docstring(module) or "") < 20}


#: What only others call: libraries whose classes ours extend; and a figure that tests compare with nnU-Net's.
CALLED_BY_OTHERS = {
    "set_thread_id": "batchgenerators", "persistent_load": "pickle", "reducer_override": "pickle", "forward": "torch",
    "model_post_init": "pydantic", "redirect_request": "urllib", "handle": "logging", "get_sync": "zarr",
    "get_partial_values": "zarr", "get_config": "numcodecs", "compute_encoded_size": "zarr", "_decode_single": "zarr",
    "tickSpacing": "pyqtgraph", "paintEvent": "Qt", "moveEvent": "Qt", "hideEvent": "Qt", "eventFilter": "Qt", "last_norm": "tests/parity",
}  # fmt: skip


def test_nothing_is_defined_that_nothing_uses():
    """What only a test calls belongs into the test."""
    texts = {
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path.read_text(
            encoding="utf-8"
        )
        for path in SOURCE.rglob("*.py")
    }
    found = dead_names(texts, (SOURCE / "napari.yaml").read_text(encoding="utf-8"))
    assert not [line for line in found if line.partition(" ")[2] not in CALLED_BY_OTHERS]
    assert {line.partition(" ")[2] for line in found} == set(CALLED_BY_OTHERS)


def test_names_that_nothing_uses_are_found():
    first = """
        MOST, _LEFT = 3, 4
        def used(): return MOST
        def again(n): return again(n - 1)
        class Kind:
            def __init__(self): self.seen = self.lost = 1
            def look(self): return self.seen
            def gone(self): return self.gone()
            @property
            def size(self): return 1
        """
    second = """
        from a import Kind, used as taken, again
        lazy("b:named")
        def named(): return taken(), Kind().look()
        @verb
        def handed_on(): pass
        def public(): pass
        """
    texts = {"a": textwrap.dedent(first), "b": textwrap.dedent(second)}
    found = {line.partition(" ")[2] for line in dead_names(texts, also="b:public")}
    assert found == {"_LEFT", "again", "lost", "gone", "size"}


def _imported(path):
    """Yield the top names of what a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


#: Libraries that bring types and are installed with the package, so that types are checked wherever it is.
TYPED = {"PIL", "annotated_types", "matplotlib", "numpy", "platformdirs", "pydantic", "pydantic_core", "rich", "torch"}


def test_types_can_be_checked_where_a_library_is_missing():
    """A library without types, or one that need not be there, is on mypy's list, or types are only checked here."""
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["overrides"]
    untyped = {name.removesuffix(".*") for name in overrides[0]["module"]}
    imported = {name for path in SOURCE.rglob("*.py") for name in _imported(path)}
    assert imported - set(sys.stdlib_module_names) - {"napari_nnunet"} - untyped == TYPED


def test_flags_are_made_in_one_place():
    """Those of the verbs come from their requests; --version belongs to the program."""
    made = {
        path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8").count(".add_argument(")
        for path in SOURCE.rglob("*.py")
        if path.parent.name != "resources"  # segment.py is a program of its own
    }
    assert {name: count for name, count in made.items() if count} == {"cli/flags.py": 2, "cli/main.py": 1}


def _names(path):
    """Return the public classes, types, constants and functions that a module defines."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = getattr(node, "targets", [getattr(node, "target", node)])
        names = {getattr(x, "name", None) or getattr(x, "id", None) for x in targets}
        yield from (name for name in names if name and not name.startswith("_") and len(name) > 1)


def test_a_name_means_one_thing():
    """Verbs and Python's door are called like the jobs they start; formats of images answer the same four questions.

    Formats of networks answer the same three, and segment.py is a program of its own.
    """
    places = {}
    for path in SOURCE.rglob("*.py"):
        for name in _names(path):
            places.setdefault(name, []).append(path.relative_to(SOURCE).as_posix())
    doors = ("cli/", "api/", "engine/planning/probe.py", "formats/images/", "resources/segment.py")
    twice = {
        name: [p for p in found if not p.startswith(doors) and not p.endswith("openvino_graph.py")]
        for name, found in places.items()
    }
    assert not {name: found for name, found in twice.items() if len(found) > 1}


def _late_imports(path):
    """Return the lines of imports within functions."""
    text = path.read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    found = {x.lineno for f in functions for x in ast.walk(f) if isinstance(x, ast.Import | ast.ImportFrom)}
    return [text.splitlines()[line - 1] for line in sorted(found)]


def test_imports_within_functions_are_few_and_say_why():
    """Each costs a reader a look to the middle of a module; loading torch, ITK or scipy late is worth it."""
    late = {path: _late_imports(path) for path in SOURCE.rglob("*.py")}
    assert sum(len(lines) for lines in late.values()) <= LATE_IMPORTS
    assert not [f"{path.name}: {line.strip()}" for path, lines in late.items() for line in lines if "  # " not in line]


def test_test_files_stay_short_and_have_names_of_their_own():
    """Pytest imports them by their bare names, so that two of the same name would hide each other."""
    paths = list((ROOT / "tests").rglob("test_*.py"))
    names = [path.name for path in paths]
    assert sorted(names) == sorted(set(names))
    assert not [p.name for p in paths if len(p.read_text(encoding="utf-8").splitlines()) > LONGEST_TEST_FILE]


def test_a_dock_words_every_error_for_a_window():
    """What to do differs: a shell has flags, a window has docks and buttons."""
    shown = [
        f"{path.name}: {line.strip()}"
        for path in (SOURCE / "widgets").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"error\.message|(?<!NotReadyError\()\bstr\(error\)|\{error\}", line) and path.name != "words.py"
    ]
    assert not shown


def test_docks_touch_layers_wherever_the_pointer_is():
    """In 3-D napari fails to add, remove or activate Labels below a pointer that never moved: frame/layers.py."""
    ways = re.compile(r"viewer\.add_(layer|image|labels)\(|\.layers\.remove\(|\.selection\.active = ")
    found = [path for path in (SOURCE / "widgets").rglob("*.py") if ways.search(path.read_text(encoding="utf-8"))]
    assert [path.relative_to(SOURCE / "widgets").as_posix() for path in found] == ["frame/layers.py"]


@pytest.mark.slow
def test_wheel_and_sdist_carry_manifest_and_model(tmp_path):
    import tarfile
    import zipfile

    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    names = set(zipfile.ZipFile(wheel).namelist())
    model = "sample_model/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0/checkpoint_final.pth"
    assert {
        "napari_nnunet/napari.yaml",
        "napari_nnunet/resources/icon.svg",
        f"napari_nnunet/resources/{model}",
        "napari_nnunet/resources/docs/segment.md",
    } <= names
    assert {"napari_nnunet/py.typed"} <= names
    target = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)], check=True
    )
    code = (
        "from npe2 import PluginManifest; import napari_nnunet;"
        "print(PluginManifest.from_distribution('napari-nnunet').display_name, napari_nnunet.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"PYTHONPATH": str(target), "PATH": "", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.startswith("nnU-Net")
    assert str(target) in done.stdout
    sdist = next(tmp_path.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"napari.yaml", "src/napari_nnunet/napari.yaml", "tox.ini", "README.md", "LICENSE"} <= inside
