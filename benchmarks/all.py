"""Every benchmark by one command: tables in docs/benchmarks.md, and a picture of the comparisons with nnunetv2.

    python benchmarks/all.py --data DATA --workspace WORKSPACE --peer PYTHON [--old OLD/src] [--only NAME ...]
        [--results FOLDER]

DATA holds the datasets and models of the tests, WORKSPACE a planned and preprocessed hippocampus dataset, OLD/src an
earlier state, which reading is compared with. The benchmarks run one after the other; what they find is kept in FOLDER
(a folder for each computer, a JSON file for each benchmark), so that ``--only`` repeats a few. The section of
docs/benchmarks.md that belongs to this computer is written anew, with its picture; those of other computers stay, so what only another
computer can show (AMX, a GPU) keeps its figures, with its name.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import choose
import decide
import reading
from napari_nnunet.engine.machine import available_threads
from napari_nnunet.engine.network.device import cpu_features
from napari_nnunet.jobs.arithmetic import processor

ROOT = Path(__file__).parents[1]
PAGE, PICTURES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "images"
BEGIN, END = "<!-- measured on: {} -->", "<!-- end of {} -->"
HEIGHT, WIDTH, LABEL = 22, 760, 330  # pixels: of a bar with its gap, of the picture, of the names


@dataclass(frozen=True)
class Row:
    """One comparison: seconds of both sides; the share of the memory, where it was measured."""

    task: str
    peer: float | None
    ours: float
    memory: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """A script, its arguments besides ``--json``, the table of what it found, and the comparisons with nnunetv2 in it."""

    title: str
    script: str
    arguments: tuple[str, ...]
    table: Callable[[Any], str]
    rows: Callable[[Any], list[Row]] = lambda _: []


def _predictions(found: Any) -> list[Row]:
    return [Row(row["name"], row["nnunetv2"]["seconds"], row["ours"]["seconds"], row["memory_share"]) for row in found]


def _steps(found: Any) -> list[Row]:
    return [
        Row(
            f"a training step, {row['configuration']}",
            row["peer"]["step"],
            row["ours"]["step"],
            row["ours"]["memory"] / row["peer"]["memory"],
        )
        for row in found
    ]


def _preprocessing(found: Any) -> list[Row]:
    return [
        Row(f"planning and preprocessing, {row['task']}", row["peer_seconds"], row["seconds"], row["memory_ratio"])
        for row in found["rows"]
    ]


def _evaluations(found: Any) -> list[Row]:
    return [
        Row(
            row["task"],
            row.get("peer_seconds"),
            row["seconds"],
            row["mb"] / row["peer_mb"] if "peer_mb" in row else None,
        )
        for row in found["rows"]
    ]


def _compared(title: str, script: str, arguments: tuple[str, ...], rows: Callable[[Any], list[Row]]) -> Benchmark:
    """Return a benchmark of which every row is a comparison with nnunetv2."""
    return Benchmark(title, script, arguments, lambda found: table(rows(found)), rows)


def _busy(title: str, script: str, arguments: tuple[str, ...], rows: Callable[[Any], list[Row]]) -> Benchmark:
    """Return the same beside as many busy loops as there are cores; it is not drawn."""
    loops = str(available_threads())
    return Benchmark(
        f"{title} beside {loops} busy loops",
        script,
        (*arguments, "--busy", loops),
        lambda found: table(rows(found)),
    )


def benchmarks(options: argparse.Namespace) -> dict[str, Benchmark]:
    """Return every benchmark by its name."""
    data, peer = ("--data", str(options.data)), ("--peer", options.peer)
    workspace = ("--workspace", str(options.workspace))
    small = (*data, *peer, "--classes")
    known = {
        "predict": _compared("Prediction", "predict.py", (*small, *options.classes), _predictions),
        "predict-busy": _busy("Prediction", "predict.py", small, _predictions),
        "train": _compared("Training", "train.py", (*workspace, *peer), _steps),
        "train-busy": _busy("Training", "train.py", (*workspace, *peer, "--rounds", "1"), _steps),
        "preprocess": _compared("Planning and preprocessing", "preprocess.py", (*data, *peer), _preprocessing),
        "evaluate": _compared("Evaluation and postprocessing", "evaluate.py", (*data, *peer, "--large"), _evaluations),
        "decide": Benchmark("Deciding with many classes", "decide.py", ("--size", "100", "128", "128"), decide.table),
        "choose": Benchmark("The arithmetic that is chosen", "choose.py", (), choose.table),
    }
    if options.old is not None:
        known["reading"] = Benchmark("Reading", "reading.py", ("--old", str(options.old)), reading.table)
    return known


def computer() -> str:
    """Name this computer: processor, features that matter, libraries."""
    features = ", ".join(sorted(cpu_features())) or "no known features"
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "openvino"))
    return f"{processor()} ({features}), {libraries}"


def table(rows: list[Row]) -> str:
    """Return a table in Markdown."""
    lines = ["| task | nnunetv2 | napari-nnunet | times faster | memory ratio |", "|---|---|---|---|---|"]
    for row in rows:
        peer, faster = ("–", "–") if row.peer is None else (f"{row.peer:.2f} s", f"{row.peer / row.ours:.1f}")
        memory = "–" if row.memory is None else f"{row.memory:.2f}"
        lines.append(f"| {row.task} | {peer} | {row.ours:.2f} s | {faster} | {memory} |")
    return "\n".join(lines)


def digest(name: str) -> str:
    """Return what stands for a computer in names of files."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def section(found: dict[str, tuple[Benchmark, Any]], name: str) -> str:
    """Return what stands on the page for this computer, between its marks."""
    parts = [BEGIN.format(name), f"## {name}", f"![Times faster than nnunetv2](images/benchmarks-{digest(name)}.svg)"]
    for benchmark, results in found.values():
        parts += [f"{benchmark.title} (`python benchmarks/{benchmark.script}`):", benchmark.table(results)]
    return "\n\n".join([*parts, END.format(name)])


def placed(page: str, text: str, name: str) -> str:
    """Return the page with the section of a computer exchanged, or added at its end."""
    found = re.compile(re.escape(BEGIN.format(name)) + ".*?" + re.escape(END.format(name)), re.DOTALL)
    return found.sub(lambda _: text, page) if found.search(page) else f"{page.rstrip()}\n\n{text}\n"


def picture(rows: list[Row], name: str) -> str:
    """Return bars (SVG): how many times faster than nnunetv2, which is the line at 1."""
    shown = [(row.task, row.peer / row.ours) for row in rows if row.peer is not None]
    scale = (WIDTH - LABEL - 50) / max([1.0, *(ratio for _, ratio in shown)])
    bars = []
    for i, (task, ratio) in enumerate(shown):
        y = 46 + i * HEIGHT
        bars.append(
            f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(task)}</text>'
            f'<rect x="{LABEL}" y="{y}" width="{ratio * scale:.0f}" height="{HEIGHT - 6}" fill="#3b7dd8"/>'
            f'<text x="{LABEL + ratio * scale + 6:.0f}" y="{y + 13}">{ratio:.1f}</text>'
        )
    bottom = 52 + len(shown) * HEIGHT
    line = f'<line x1="{LABEL + scale:.0f}" y1="40" x2="{LABEL + scale:.0f}" y2="{bottom - 8}" stroke="#888"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{bottom}" fill="white"/>'
        f'<text x="8" y="16">Times faster than nnunetv2 (the line)</text>'
        f'<text x="8" y="32" font-size="9">{escape(name)}</text>{"".join(bars)}{line}</svg>\n'
    )


def main() -> None:
    """Run what is asked for, and write page and picture from all that is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--peer", required=True, help="a Python with nnunetv2")
    parser.add_argument("--results", type=Path, default=Path("benchmark-results"))
    parser.add_argument(
        "--classes", nargs="*", default=["2", "20", "60"], help="of the large volume; none leaves it out"
    )
    parser.add_argument("--old", type=Path, help="the folder src of an earlier state")
    parser.add_argument("--only", nargs="*", help="names of benchmarks")
    options = parser.parse_args()
    known, own = benchmarks(options), computer()
    if unknown := [name for name in options.only or () if name not in known]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; known are {', '.join(known)}")
    results = options.results / digest(own)
    results.mkdir(parents=True, exist_ok=True)
    for name in known if options.only is None else options.only:
        script = ROOT / "benchmarks" / known[name].script
        target = results / f"{name}.json"
        subprocess.run([sys.executable, str(script), *known[name].arguments, "--json", str(target)], check=True)
    found = {
        name: (benchmark, json.loads((results / f"{name}.json").read_text(encoding="utf-8")))
        for name, benchmark in known.items()
        if (results / f"{name}.json").is_file()
    }
    PAGE.write_text(placed(PAGE.read_text(encoding="utf-8"), section(found, own), own), encoding="utf-8")
    rows = [row for benchmark, read in found.values() for row in benchmark.rows(read)]
    (PICTURES / f"benchmarks-{digest(own)}.svg").write_text(picture(rows, own), encoding="utf-8")


if __name__ == "__main__":
    main()
