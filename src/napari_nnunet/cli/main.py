"""Where the command line begins."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from napari_nnunet.cli.verbs import VERBS, Verb, named
from napari_nnunet.errors import InternalError, NnunetError
from napari_nnunet.version import __version__

_EPILOG = """\
Every verb may be written with hyphens or underscores (predict-from-modelfolder), and nnU-Net's commands keep working
with 'nnUNetv2_' replaced by 'napari-nnunet '. 'napari-nnunet VERB --help' explains a verb.
"""


def build_parser(only: Verb | None = None) -> argparse.ArgumentParser:
    """Return the parser with all verbs; with the flags of one of them, where it is named, else of all."""
    parser = argparse.ArgumentParser(
        prog="napari-nnunet",
        description="Segment 2-D and 3-D images with trained nnU-Net models.",
        epilog=_EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"napari-nnunet {__version__}")
    parsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add_to(parsers, whole=only is None or verb is only)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0 success, 1 an error the message explains, 2 wrong arguments, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and not words[0].startswith("-"):
        words[0] = words[0].replace("-", "_")
    verb = named(words[0]) if words else None
    options = build_parser(verb or VERBS[0]).parse_args(words)
    verb = named(options.verb)
    try:
        return 0 if verb is None else _carry_out(verb, options)
    except NnunetError as error:
        report = f"\n{error.report}" if isinstance(error, InternalError) else ""
        print(f"Error: {error.message}{report}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. Finished cases are complete; nothing half-written was left.", file=sys.stderr)
        return 130


def _carry_out(verb: Verb, options: argparse.Namespace) -> int:
    from napari_nnunet.cli.flags import read
    from napari_nnunet.cli.shell import Shell, ShellRequest

    requests = read(verb.kind, options)
    shell = Shell(read(ShellRequest, options)[0])
    if verb.together:
        return int(verb.run(requests, shell) or 0)
    status = 0
    for request in requests:
        status |= int(verb.run(request, shell) or 0)
    return status
