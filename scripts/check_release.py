"""Build what is published and try it as a user would: python scripts/check_release.py FOLDER [--no-window].

Sdist and wheel are built and checked (metadata, README, contents, manifest); the wheel is installed with napari in a
new environment, and scripts/try_wheel.py segments the sample there, in a real window.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for what is built and installed; emptied first")
    parser.add_argument("--no-window", action="store_true", help="only build and check")
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    dist = args.folder / "dist"
    run(sys.executable, "-m", "build", "--outdir", dist, ROOT)
    wheel, sdist = next(dist.glob("*.whl")), next(dist.glob("*.tar.gz"))
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    run("check-wheel-contents", wheel)
    check_page(wheel)
    unpacked = args.folder / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    run("npe2", "validate", unpacked / "napari_nnunet" / "napari.yaml")
    if not args.no_window:
        try_in_window(wheel, args.folder / "env")
    print(f"{wheel.name} and {sdist.name} can be published.")
    return 0


def check_page(wheel: Path) -> None:
    """The README renders, begins below the title, and leads nowhere that is not in the repository."""
    from readme_renderer import markdown

    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    text = metadata.get_payload()
    page = markdown.render(text)
    if page is None:
        raise SystemExit("The README does not render.")
    if re.search(r"<h1", page):
        raise SystemExit("The README has a heading of level 1: the page's own title is one.")
    home = dict(entry.split(", ") for entry in metadata.get_all("Project-URL"))["Homepage"]
    addresses = re.findall(r'(?:href|src)="([^"]+)"', page)
    relative = [a for a in addresses if not a.startswith(("http://", "https://", "#"))]
    own = [a.removeprefix(home).split("/main/")[1].split("#")[0] for a in addresses if a.startswith(home + "/")]
    missing = [path for path in own if not (ROOT / path).exists()]
    if relative or missing:
        raise SystemExit(f"Links of the README that lead nowhere on the index: {relative + missing}")
    print(f"The README renders, with {len(re.findall('<img', page))} pictures and {len(own)} own links.")


def try_in_window(wheel: Path, folder: Path) -> None:
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[all]")
    # as on a computer that never had the plugin
    own = {name: str(folder / "home" / name) for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "HOME")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    window = (python, ROOT / "tests" / "with_screen.py", python, ROOT / "scripts" / "try_wheel.py")
    run(*window, cwd=folder, env={**kept, **own})


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    words = [str(word) for word in command]
    print("+", " ".join(words), flush=True)
    subprocess.run(words, check=True, cwd=cwd, env=env)


if __name__ == "__main__":
    raise SystemExit(main())
