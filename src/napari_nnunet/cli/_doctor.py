"""``doctor`` and ``demo``."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from napari_nnunet.cli._predict import Verbs
from napari_nnunet.errors import ResourceError


def add_verbs(verbs: Verbs) -> None:
    """Add both verbs."""
    doctor = verbs.add_parser("doctor", help="look at this computer and say what to mend", allow_abbrev=False)
    doctor.set_defaults(run=_doctor)
    demo = verbs.add_parser(
        "demo",
        help="plan, train and segment synthetic volumes",
        description="Make synthetic volumes, plan and preprocess them, train, segment volumes that "
        "were not trained on, print the Dice, write pictures. Needs no data, no screen and no GPU.",
        allow_abbrev=False,
    )
    demo.add_argument("-o", type=Path, default=Path("demo-output"), metavar="DIR", help="(default: %(default)s)")
    demo.add_argument(
        "--minutes", type=float, metavar="M", help="train as much as fits into this time (default: 500 steps)"
    )
    demo.add_argument("--gui", action="store_true", help="then open napari on the result")
    demo.set_defaults(run=_demo)


def _doctor(_: argparse.Namespace) -> int:
    from napari_nnunet.jobs.doctor import examine

    print(examine())
    return 0


def _demo(options: argparse.Namespace) -> int:
    from napari_nnunet.cli._show import show
    from napari_nnunet.jobs.demo import demo

    result = show(demo(options.o, minutes=options.minutes))
    for name, value in result.dice.items():
        print(f"Dice {name:<8} {value:.3f}")
    print(f"Image, truth, result: {result.picture}")
    print(f"How the training went: {result.curves}")
    print(f"Dataset, plans and model: {result.folder / 'workspace'}")
    if options.gui:
        _open_napari(options.o)
    return 0


def _open_napari(folder: Path) -> None:
    """Open image and result in napari, as a program of its own: the command line does not know napari."""
    files = [folder / "imagesTs/sample_001_0000.nii.gz", folder / "predictions/sample_001.nii.gz"]
    program = "napari_nnunet.widgets.show"
    try:
        subprocess.run([sys.executable, "-m", program, *map(str, files)], check=True)
    except subprocess.CalledProcessError as error:
        raise ResourceError(
            "napari could not be opened; is there a screen, and is it installed (pip install 'napari-nnunet[all]')?"
        ) from error
