"""The command line: parse, start a job, show its events. No logic."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from napari_nnunet.cli import _data, _doctor, _ensemble, _plan, _predict, _presets, _share, _train
from napari_nnunet.errors import NnunetError
from napari_nnunet.version import __version__

_EPILOG = """\
Every verb may be written with hyphens or underscores (predict-from-modelfolder), and nnU-Net's commands keep working
with 'nnUNetv2_' replaced by 'napari-nnunet '. 'napari-nnunet VERB --help' explains a verb.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all verbs."""
    parser = argparse.ArgumentParser(
        prog="napari-nnunet",
        description="Segment 2-D and 3-D images with trained nnU-Net models.",
        epilog=_EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"napari-nnunet {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in (_predict, _data, _plan, _train, _ensemble, _share, _presets, _doctor):
        module.add_verbs(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0 success, 1 an error the message explains, 2 wrong arguments, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and not words[0].startswith("-"):
        words[0] = words[0].replace("-", "_")
    options = build_parser().parse_args(words)
    try:
        status: int = options.run(options)
    except NnunetError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. Finished cases are complete; nothing half-written was left.", file=sys.stderr)
        return 130
    return status
