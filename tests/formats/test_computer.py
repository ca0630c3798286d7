"""Which processes can be seen: those of a container beside cannot, nor those of another computer of the same name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from napari_nnunet.errors import SettingsError
from napari_nnunet.formats.atomic import partial_name, remove_leftovers
from napari_nnunet.formats.claim import Runner, claimed, runner_of

HOLDS = """
import sys, time
from pathlib import Path
from napari_nnunet.formats.claim import claimed
with claimed(Path(sys.argv[1]), "It is already being written"):
    print("held", flush=True)
    time.sleep(300)  # it must be killed: an end of its own would take the claim back
"""


def contained():
    """Return the words that run a command in a container, which has process numbers of its own; skip without."""
    words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which(words[0]) is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no containers here")
    return words


def test_what_a_container_beside_writes_is_its_own_until_it_ends(tmp_path):
    command = [*contained(), sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        os.utime(tmp_path / ".claimed", (1, 1))  # it was made long ago
        with (
            pytest.raises(SettingsError, match=r"written by process \d+ in another container since"),
            claimed(tmp_path, "It"),
        ):
            pass
        process.kill()
    os.utime(tmp_path / ".claimed", (1, 1))
    with claimed(tmp_path, "It", patience=120):  # its child ends a moment later
        assert runner_of(tmp_path / ".claimed") == Runner.own()


def test_a_computer_of_the_same_name_is_another_one():
    own = Runner.own()
    assert own.here
    assert own.alive
    long_ago = replace(own, boot="an earlier start", created=psutil.boot_time() - 1000)
    assert long_ago.here
    assert not long_ago.alive
    elsewhere = replace(own, boot="another computer", created=time.time(), pid=2**22 + 7)
    assert not elsewhere.here
    assert elsewhere.alive


def test_what_other_computers_are_writing_stays_for_a_week(tmp_path):
    gone = 2**22 + 7  # beyond the highest number of a process
    name, place = partial_name("a"), partial_name("a").rpartition(".partial-")[2].split("-")[1]
    fresh = tmp_path / f".a.partial-{gone}-{'0' * 6}-abc123"
    old, own = fresh.with_name(fresh.name.replace("abc", "def")), tmp_path / f".a.partial-{gone}-{place}-abc123"
    for path in (fresh, old, own, tmp_path / name):
        path.touch()
    os.utime(old, (1, 1))
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {fresh, tmp_path / name}


@pytest.mark.parametrize("word", ["x" * (3 << 20), "\udcff"], ids=["long", "no text"])
def test_whatever_was_typed_a_claim_is_read_by_others(tmp_path, monkeypatch, word):
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: ["python", word])
    with claimed(tmp_path, f"{word[:100]} is already being written"):
        claim = tmp_path / ".claimed"
        json.loads(claim.read_text(encoding="utf-8"))
        assert runner_of(claim) == Runner.own()
        assert Runner.own().process() is not None
