"""What an attack tries, and what came of it: counted by kind, and written as the table of docs/safety.md."""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from napari_nnunet.cli import main
from napari_nnunet.errors import InternalError, for_people

TRIES = int(os.environ.get("NAPARI_NNUNET_ATTACK", "0"))  # of every kind in the whole attack; 0 where it does not run
SEED = int(os.environ.get("NAPARI_NNUNET_ATTACK_SEED", "0"))
MINUTES = float(os.environ.get("NAPARI_NNUNET_ATTACK_MINUTES", "30"))
FIGURES = os.environ.get("NAPARI_NNUNET_ATTACK_FIGURES")  # a file that keeps them, where the attack is made in pieces
LONGEST = 20.0  # seconds of processor time for one try
#: What part of the time each family has; the tests that always run need the rest.
SHARES = {
    "files": 0.16,
    "JSON": 0.08,
    "arguments": 0.08,
    "killed": 0.3,
    "two at once": 0.18,
    "full disk": 0.05,
    "pipes": 0.02,
}
_SPENT: dict[str, list[float]] = {}  # of each family: seconds that its tests took, and how many of them began
#: What a whole attack tries; a table that lacks one of these is of a part.
KINDS = ("DICOM", "JSON", "arguments", "arrays", "checkpoints", "full disk", "images", "killed", "pickles", "pipes", "tables",
         "two at once", "zarr", "zips")  # fmt: skip
ALLOWED = ("tried", "refused", "harmless")
NEVER = ("traceback", "hang", "executed", "escaped", "lost")
_BEGIN, _END = "<!-- figures -->", "<!-- /figures -->"


def numbers(family, parts, tries, quick, since=None):
    """Count the tries of one of the parts of a family, as long as its share of the time lasts.

    What one part leaves of its share, the following ones have.

    Parameters
    ----------
    family : str
        One of :data:`SHARES`.
    parts : int
        How many tests share it.
    tries : int
        How often the whole attack tries.
    quick : int
        How often the quick part does.
    since : float, optional
        When the test began, where it did something before.
    """
    spent, begun = _SPENT.setdefault(family, [0.0, 0]), since or time.monotonic()
    until = begun + (MINUTES * 60 * SHARES[family] - spent[0]) / max(parts - spent[1], 1)
    spent[1] += 1
    try:
        for number in range(tries if TRIES else quick):
            if TRIES and time.monotonic() > until:
                return
            yield number
    finally:
        spent[0] += time.monotonic() - begun


class Tally:
    """The figures of all kinds."""

    def __init__(self):
        self.counts: dict[str, Counter] = {}
        self.seeds = [SEED]
        self.partial = False
        self._faults: list[str] = []

    def require_none(self):
        """End a test that noted what must never be."""
        found, self._faults = self._faults, []
        if found:
            raise AssertionError(f"{len(found)} faults:\n" + "\n".join(found[:8]))

    def note(self, kind, what, about=""):
        """Count one try; ``about`` tells a fault well enough to repeat it."""
        counted = self.counts.setdefault(kind, Counter())
        counted["tried"] += 1
        counted[what] += 1
        if FIGURES:
            with Path(FIGURES).open("a", encoding="utf-8") as file:
                file.write(json.dumps((SEED, kind, what)) + "\n")
        if what in NEVER:
            self._faults.append(f"{kind}, seed {SEED}: {what}: {about}")
            if TRIES:
                print(f"\n{self._faults[-1]}", flush=True)  # half an hour before the end

    def attempt(self, kind, act, about, canary):
        """Try something with a hostile file, which would make ``canary`` if any of it were executed."""
        begun = time.process_time()
        try:
            act()
            what = "harmless"
        except Exception as error:
            told = for_people(error)
            good = told.message and len(told.message) < 3000 and "Traceback" not in told.message
            what = "refused" if good and not isinstance(told, InternalError) else "traceback"
            about = f"{about}: {error!r:.300}"
        if time.process_time() - begun > LONGEST:
            what = "hang"
        if canary.exists():
            what = "executed"
            canary.unlink()
        self.note(kind, what, about)

    def command(self, kind, words):
        """Try a command line."""
        said, begun = io.StringIO(), time.process_time()
        status: object = None
        with redirect_stderr(said), redirect_stdout(said):
            try:
                status = main(words)
            except SystemExit as end:
                status = end.code
            except BaseException as error:
                said.write(f"Traceback {error!r}")
        text = said.getvalue()
        bad = "Traceback (" in text or "fault of the program" in text or text.startswith("Traceback")
        what = "traceback" if bad else "harmless" if status == 0 else "refused"
        if what == "refused" and not re.search(r"\w{3}", text):
            what = "traceback"
        if time.process_time() - begun > LONGEST:
            what = "hang"
        self.note(kind, what, f"{[word[:80] for word in words]}: {text[-400:]}")

    def table(self):
        """Return the figures as a table."""
        columns = (*ALLOWED, *NEVER)
        heads = {"refused": "refused with a sentence"}
        lines = [f"| | {' | '.join(heads.get(name, name) for name in columns)} |", "|---|" + "---|" * len(columns)]
        rows = {**dict(sorted(self.counts.items())), "all": sum(self.counts.values(), Counter())}
        lines += [f"| {kind} | {' | '.join(f'{row[name]:,}' for name in columns)} |" for kind, row in rows.items()]
        return "\n".join(lines)

    def gather(self, path: Path):
        """Count what a file keeps instead: of this piece of the attack, and of those that were made before."""
        self.counts.clear()
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
        for _, kind, what in lines:
            self.counts.setdefault(kind, Counter()).update(("tried", what))
        self.seeds = sorted({seed for seed, _, _ in lines})

    @property
    def missing(self):
        """What a whole attack tries and this one did not; of one that is gathered, pieces may be parts of tests."""
        return [kind for kind in KINDS if kind not in self.counts]

    def write(self, path: Path):
        """Put the table, and how it was made, into a page between its two marks, if it is of a whole attack.

        Returns
        -------
        str
            Why it is not written; empty where it is.
        """
        if self.missing:
            return f"{path.name} stays as it is: {', '.join(self.missing)} were not tried."
        if self.partial:
            return f"{path.name} stays as it is: this was a part of the attack."
        text = path.read_text(encoding="utf-8")
        made = f"`tox run -e attack` with NAPARI_NNUNET_ATTACK={TRIES} and the seeds {', '.join(map(str, self.seeds))}"
        before, after = text.partition(_BEGIN)[0], text.partition(_END)[2]
        path.write_text(f"{before}{_BEGIN}\n{self.table()}\n\nMade by {made}.\n{_END}{after}", encoding="utf-8")
        return ""


def contents(folder, ignored=()):
    """Return the bytes of every file below a folder, hidden ones and those that are passed over left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in Path(name).parts) and path.name not in ignored:
            with suppress(FileNotFoundError):
                found[name] = path.read_bytes()
    return found
