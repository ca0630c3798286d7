"""What a sentence proposes to type can be typed as it stands, whatever the folder is called."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.names import typed

ROOT = Path(__file__).parents[2] / "src" / "napari_nnunet"
ODD = ["/data/my models/a b", "it's", "a$HOME", "x;y", "plain", "Ü b"]


@pytest.mark.parametrize("word", ODD)
def test_a_shell_reads_the_words_that_were_meant(word):
    assert shlex.split(f"verb -m {typed(word)} -f 0") == ["verb", "-m", word, "-f", "0"]
    assert shlex.split(typed("-d", word, "-c", "2d")) == ["-d", word, "-c", "2d"]


def test_on_windows_a_path_keeps_its_strokes_and_blanks_have_double_quotes():
    assert typed(r"C:\models\a", windows=True) == r"C:\models\a"
    assert typed(r"C:\my models\a", "x", windows=True) == r'"C:\my models\a" x'
    assert typed("a b", windows=True) == subprocess.list2cmdline(["a b"])


def test_flags_of_a_model_with_blanks_in_its_names_are_words():
    assert shlex.split(ModelName("my trainer", "my plans", "2d").flags) == ["-p", "my plans", "-tr", "my trainer"]


#: Behind a flag that is proposed: what is a number or one of a few words, was quoted before, or goes to no shell.
SAFE = {
    "typed", "map_words", "way", "ways", "stray", "recognised", "own", "command", "output", "names", "processes", "user",
}  # fmt: skip


def test_no_sentence_proposes_a_name_or_path_that_is_not_quoted():
    for path in sorted(ROOT.rglob("*.py")):
        if "resources" in path.parts:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            for inside in re.findall(r"""['"( ]--?[a-z][a-z_]+[ =]\{(\w+)""", line):
                if re.search(r"""f["']""", line):
                    assert inside in SAFE, f"{path.relative_to(ROOT)}: {line.strip()}"
