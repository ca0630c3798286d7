"""The command line: words become a request, a job answers it, its events are shown. No logic."""

from napari_nnunet.cli.main import build_parser, main

__all__ = ["build_parser", "main"]
