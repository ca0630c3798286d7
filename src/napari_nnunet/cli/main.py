"""Where the command line begins."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import re
import shlex
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from napari_nnunet.cli.verbs import VERBS, Verb, named
from napari_nnunet.errors import InternalError, SettingsError, for_people, printable
from napari_nnunet.version import __version__

_NOBODY_READS = 141  # as of a program that the system ends for that: 128 + SIGPIPE
_EPILOG = """\
Every verb may be written with hyphens or underscores (predict-from-modelfolder), and nnU-Net's commands keep working
with 'nnUNetv2_' replaced by 'napari-nnunet '. 'napari-nnunet VERB --help' explains a verb.
"""


def build_parser(whole: Collection[Verb] = VERBS) -> argparse.ArgumentParser:
    """Return the parser with all verbs, and with the flags of some: those of all take a while to make."""
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
        verb.add_to(parsers, whole=verb in whole)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0 success, 1 an error the message explains, 2 wrong arguments, 130 interrupted, 141 nobody read the output.
    """
    if arguments is not None:
        return _answered(list(arguments), shell=False)
    # Threads that wait sleep, here and in processes that are started: spinning ones hold each other up where cores
    # are busy (a 2-D training step beside other work: 18 s, with this 2.2 s). It counts before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Plugins for models are searched for in all packages that are installed, for longer than a plan takes.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    ending = _Ending()
    atexit.register(ending)  # before all that is imported registers what it does at the end: it comes last
    try:
        ending.status = _answered(sys.argv[1:], shell=True)
    finally:
        gc.freeze()  # the process ends: Python would look for garbage among all that was imported, 0.4 s long
    return ending.status


class _Ending:
    """Ends the process after all that is done at its end: Python would take apart what was imported, 0.2 s long.

    Nothing is lost by then: threads and workers have ended, temporary folders are removed, and what is written is
    closed where it is written.
    """

    status: int | None = None  # what the process ends with; None where it was not said, and Python goes its own way

    def __call__(self) -> None:
        """Write what waits to be shown, and end."""
        if self.status is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # nobody reads it any more; Python has an answer to that
            return
        os._exit(self.status)


def _answered(words: list[str], *, shell: bool) -> int:
    """Carry out what was typed; returns the exit status."""
    if words and not words[0].startswith("-"):
        words[0] = words[0].replace("-", "_")
    verb = named(words[0]) if words else None
    options = build_parser(() if verb is None else (verb,)).parse_args(list(map(_as_value, words)))
    verb = named(options.verb)
    if shell and options.verb == "train":
        from napari_nnunet.engine.machine import keep_memory  # only trainings need it

        keep_memory()
    try:
        _require_readable(words)
        with redirect_stdout(_Printable(sys.stdout)):
            status = 0 if verb is None else _carry_out(verb, options, shell=shell)
            sys.stdout.flush()
        return status
    except _NobodyReads:
        if shell:  # else Python complains at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS
    except KeyboardInterrupt:
        print("Interrupted. Finished cases are complete; nothing half-written was left.", file=sys.stderr)
        return 130
    except Exception as error:  # whatever it is, a shell shows a sentence
        told = for_people(error)
        print(f"Error: {told.message}", file=sys.stderr)
        if isinstance(told, InternalError):
            _keep_report(told.report, words)
        return 1


def _as_value(word: str) -> str:
    """Return a word so that what begins with a negative number (``--map -2=cell``) is not taken for a flag."""
    return f" {word}" if re.match(r"-\d[\d.,-]*=", str(word)) else word


class _NobodyReads(BrokenPipeError):
    """The program that was to read the output, such as ``head``, has ended."""


@contextmanager
def _read_by_somebody() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _NobodyReads from error


class _Printable:
    """Writes texts as a terminal can show them.

    Parameters
    ----------
    stream : file
        Where to; it answers for all but writing.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without what a terminal would obey; what its encoding lacks is written as its number."""
        text = printable(text)
        with _read_by_somebody():
            try:
                return self._stream.write(text)
            except UnicodeEncodeError as error:
                return self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))

    def flush(self) -> None:
        """Write what waits to be written."""
        with _read_by_somebody():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _keep_report(report: str, words: Sequence[str]) -> None:
    """Keep the traceback of a fault of this program in a file, and say where; print it where no file can be written."""
    import platformdirs  # only where something went wrong

    text = f"napari-nnunet {__version__}, Python {sys.version}\n{shlex.join(words)}\n\n{report}"
    folder = Path(platformdirs.user_log_dir("napari-nnunet", appauthor=False))
    path = folder / f"report-{time.strftime('%Y-%m-%d-%H.%M.%S')}-{os.getpid()}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError:
        print(text, file=sys.stderr)
    else:
        print(f"This is a fault of the program. Please report it with the file {path}.", file=sys.stderr)


def _carry_out(verb: Verb, options: argparse.Namespace, *, shell: bool) -> int:
    from napari_nnunet.cli.flags import read  # --help starts sooner without
    from napari_nnunet.cli.shell import Shell, ShellRequest  # likewise

    requests = read(verb.kind, options)
    where = Shell(read(ShellRequest, options)[0])
    with _importing() if shell else nullcontext():
        run = verb.run
    if verb.together:  # a training is finished, whatever became of a case that it was validated on
        return int(run(requests, where) or 0)
    status = 0
    for request in requests:
        status |= int(run(request, where) or 0)
    return status or int(where.failed > 0)  # the rest went on, but not everything is there that was asked for


def _require_readable(words: Sequence[str]) -> None:
    """Refuse names that Python could not decode: libraries in C crash on them."""
    for word in map(str, words):
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            raise SettingsError(
                f"{word!a} holds characters that cannot be read as {sys.getfilesystemencoding()}, in which this shell "
                "names files. Set LC_ALL=C.UTF-8 (or PYTHONUTF8=1) and run it again, or rename the file."
            )


@contextmanager
def _importing() -> Iterator[None]:
    """Import without looking for garbage: what libraries define stays, and the looking takes a tenth of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
