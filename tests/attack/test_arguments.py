"""Whatever is typed: napari-nnunet does it, or says in a sentence why not; it never prints a traceback.

The quick part takes a few words for every verb; ``tox run -e attack`` as many as ``NAPARI_NNUNET_ATTACK`` says.
"""

from __future__ import annotations

import random

import pytest
from tally import SEED, TRIES, contents, numbers

from helpers import DATASET, Recipe, make_dataset, make_model, smooth_image, write_nifti
from napari_nnunet.cli.verbs import VERBS
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.names import fault_of
from napari_nnunet.schema.requests.words import is_switch

QUICK = 2  # lines for every verb
ODD = (
    "", " ", "nan", "NaN", "inf", "-inf", "-1", "0", "1", "0.5", "1e400", "9" * 400, "-" * 3, "x" * 5_000, "Größe Ä",
    "a\nb", "a\x1b[31m", "\udcff", "../../x", "/", ".", "..", "~", "~nobody/x", "/dev/null", "/proc/self/mem",
    "CON", "nul.txt", "COM1 ", "a.", "a ", "n" * 300, "é" * 130, "Dataset001_", "Dataset001_CON", "Dataset001_a.",
    "Dataset００1_A", "Dataset001_a／b", "․․/x", "a\u202eb", "Ｄataset001_Tiny", "nnUNetPlans\x00", "-x", "@x", "*", "1,2", "a=b", "a:b:c", "{}", "[1]", "file:///etc/passwd", "http://", "'", "$(id)", "%s%n", "--", "all",
)  # fmt: skip
KNOWN = ("work", "in", "empty", "text.json", "zeros.zip", "others", "here", "home", "missing", "out")
#: These make something of nothing for minutes, or ask other computers.
_LONG = ("demo", "download_pretrained_model_by_url", "measure_presets", "doctor")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with a tiny dataset and model, images, and what people give instead of them."""
    root = tmp_path_factory.mktemp("typed")
    workspace = Workspace.at(root / "work")
    make_dataset(root / "work", cases=2, shape=(6, 8, 7))
    make_model(workspace.results, Recipe(name=DATASET))
    (root / "in").mkdir()
    write_nifti(root / "in" / "a_0000.nii.gz", smooth_image((6, 8, 7))[0])
    (root / "empty").mkdir()
    (root / "text.json").write_text("no json")
    (root / "zeros.zip").write_bytes(bytes(500))
    (root / "others").mkdir()
    (root / "others" / "kept.txt").write_text("not yours")
    return root


def words_of(verb, chance, root):
    """Return a line for a verb: what must be there, more of what may be, some of it plausible."""
    model = next((root / "work" / "nnUNet_results").rglob("plans.json")).parent
    paths = (
        "in",
        "empty",
        "text.json",
        "zeros.zip",
        "missing",
        "in/a_0000.nii.gz",
        f"work/nnUNet_raw/{DATASET}",
        "out",
    )
    good = (*(str(root / name) for name in paths), str(model), DATASET, "5", "3d_fullres", "2d", "0", "cpu", ".nii.gz")
    words = [verb.name, "--workspace", str(root / "work")]
    for _, field, flag in verb.kind.flags():
        if not field.is_required() and chance.random() > 0.15:
            continue
        words += [] if flag.positional else [chance.choice(flag.names)]
        if not is_switch(field, flag):
            count = len(flag.axes) or chance.choice((1, 1, 1, 2))
            words += [chance.choice(good if chance.random() < 0.6 else ODD) for _ in range(count)]
    return words


def escaped(place):
    """Return what lies where no line should put anything, or has a name in the workspace that not every system can have."""
    beside = {path.name for path in place.iterdir()} - set(KNOWN)
    odd = [path.name for path in (place / "work").rglob("*") if fault_of(path.name) and not path.name.startswith(".")]
    return [*beside, *odd, *(["x"] if (place.parent / "x").exists() else [])]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb.name not in _LONG], ids=lambda verb: verb.name)
@pytest.mark.filterwarnings("ignore")
def test_no_line_ends_in_a_traceback(place, monkeypatch, figures, verb):
    (place / "here").mkdir(exist_ok=True)
    monkeypatch.chdir(place / "here")
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "home"))
    chance, kept = random.Random(f"{SEED} {verb.name}"), contents(place / "others")
    for _ in numbers("arguments", len(VERBS), TRIES // 10, QUICK):
        words = words_of(verb, chance, place)
        figures.command("arguments", words)
        left = escaped(place)
        if left or contents(place / "others") != kept:
            figures.note("arguments", "escaped", f"{[word[:80] for word in words]}: {left}")
    figures.require_none()
