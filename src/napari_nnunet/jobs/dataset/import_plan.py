"""What an import will do, before anything is written: cases, channels, the meaning of values, what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_nnunet.errors import DatasetError, NnunetError, counted, of_cases, some
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.dataset.pairs import Pairing, pair_folders, pair_subfolders, why_left
from napari_nnunet.formats.dataset.raw_dataset import read_info, survey
from napari_nnunet.formats.masks.facts import MaskFacts, Pieces, ValueRow, named_alike
from napari_nnunet.formats.masks.kinds import Recognised, as_objects, recognise, to_look_at
from napari_nnunet.formats.masks.translation import Told, Translation, as_meant, translate, without
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_case import (
    PlannedCase,
    channel_trouble,
    in_order_of,
    look_at_pair,
    look_closer,
    mixed_colours,
    named_otherwise,
    names_of_channels,
    task,
    unlike_channels,
    unlike_most,
    with_colours,
)
from napari_nnunet.processes.pool import run_cases
from napari_nnunet.schema.dataset import BACKGROUND, IGNORE, DatasetInfo
from napari_nnunet.schema.names import typed
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest
from napari_nnunet.schema.requests.mask_words import NONZERO, map_words

_ROWS = 12  # of the table of values in a message
_MANY = 40  # values of masks beside images with a handful
_NAMES = 6  # of cases that are written out to be left out


@dataclass(frozen=True)
class LeftOut:
    """A file that is not imported, and why."""

    path: Path
    why: str


@dataclass(frozen=True)
class ImportPlan:
    """What an import of two folders will do.

    Parameters
    ----------
    cases : tuple of PlannedCase
        Those that were read, sorted by name.
    channels : tuple of str
        Names, in order.
    left_out : tuple of LeftOut
        Files without a partner, and what was asked to be left out.
    problems : dict of str to NnunetError
        Cases that cannot be imported, and why; an import begins only when each is repaired or left out.
    recognised : Recognised or None
        What the masks are: the table of values and a proposal. None where no case can be read.
    translation : Translation or None
        What becomes of the values; None while a question is open.
    question : NnunetError or None
        What must be answered or repaired before the import, with the table in the words for a shell.
    target : Path or None
        The dataset that gets the cases; None for a new one.
    pieces : tuple of Pieces
        What was seen of masks that may number their objects.
    """

    cases: tuple[PlannedCase, ...]
    channels: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    problems: Mapping[str, NnunetError]
    recognised: Recognised | None
    translation: Translation | None
    question: NnunetError | None
    target: Path | None = None
    pieces: tuple[Pieces, ...] = ()

    @property
    def unlike(self) -> tuple[str, ...]:
        """The pictures that have other colours than most of them."""
        return unlike_most(self.cases)

    def require(self) -> Translation:
        """Return the translation of the masks; raises DatasetError with everything that is in the way."""
        if self.problems:
            total = len({case.name for case in self.cases} | set(self.problems))
            error = of_cases(self.problems, total, "imported")
            head, lines, in_window = *error.message.partition("\n")[::2], error.in_window.partition("\n")[2]
            also, also_there = (
                (f"\n{self.question.message}", f"\n{self.question.in_window}") if self.question else ("", "")
            )
            names = typed(*sorted(self.problems)) if len(self.problems) <= _NAMES else "NAME ..."
            raise DatasetError(
                head,
                shell=f"\n{lines}\nRepair them, or leave them out (--skip {names}).{also}",
                window=f"\n{in_window}\nRepair them, or leave them out.{also_there}",
            )
        if self.question is not None:
            raise self.question
        assert self.translation is not None
        return self.translation


def plan_import(workspace: Workspace, request: ImportFoldersRequest) -> Job[ImportPlan]:
    """Look at two folders and say what an import will do; nothing is written.

    Parameters
    ----------
    workspace : Workspace
        Holds the dataset that gets the cases, if one is named.
    request : ImportFoldersRequest
        What is asked for.

    Returns
    -------
    ImportPlan
        Problems and open questions are in it.

    Raises
    ------
    DatasetError
        If a folder is missing or nothing matches.
    """
    pairs = pair_subfolders if request.subfolders else pair_folders
    pairing = pairs(request.images, request.masks, suffixes=request.suffixes, skip=request.skip)
    target = None if request.dataset is None else workspace.raw / workspace.dataset_name(request.dataset)
    order = () if target is None or request.suffixes else read_info(target).channel_names
    found = [in_order_of(order, pair) for pair in pairing.pairs if pair.name not in request.skip]
    wanted = [replace(pair, spacing=request.spacing) for pair in found]
    yield Stage(name="Reading masks", total=len(wanted))
    outcomes = yield from run_cases(
        look_at_pair, [task(pair, request.apart) for pair in wanted], workers=request.workers
    )
    problems = {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}
    cases = [outcomes[pair.name].result for pair in wanted if pair.name not in problems]
    facts = {case.name: case.facts for case in cases}
    closer = to_look_at(facts)
    pieces: tuple[Pieces, ...] = ()
    if closer and not request.mapping and request.threshold is None and request.objects is None:
        tasks = [task(case.pair) for case in cases if case.name in closer]
        looked = yield from run_cases(look_closer, tasks, workers=request.workers)
        pieces = tuple(outcome.result for outcome in looked.values() if outcome.error is None)
    left = _left_out(pairing, request)
    return decide(ImportPlan(tuple(cases), (), left, problems, None, None, None, target, pieces), request)


def _left_out(pairing: Pairing, request: ImportFoldersRequest) -> tuple[LeftOut, ...]:
    skip, alone = request.skip, "no mask has its name"
    below = alone if request.subfolders else "in a subfolder"
    told = why_left(pairing)
    found = [
        LeftOut(path, told.get(path, alone if path.parent == request.images else below)) for path in pairing.images
    ]
    folder = "a mask is one file with a value for each class, or one file per class named by case and class"
    found += [
        LeftOut(path, told.get(path, folder if path.is_dir() else "no image has its name")) for path in pairing.masks
    ]
    for pair in pairing.pairs:
        if pair.name in skip:
            found += [LeftOut(path, "as asked") for path in (*pair.images, *pair.masks)]
    return tuple(found)


def decide(plan: ImportPlan, request: ImportFoldersRequest) -> ImportPlan:
    """Return a plan with the answers of a request to its questions; no file is read again.

    Parameters
    ----------
    plan : ImportPlan
        Of the same folders.
    request : ImportFoldersRequest
        With other words about values, classes, channels or cases to leave out.
    """
    gone = {case.name for case in plan.cases if case.name in request.skip}
    cases, unlike = with_colours([case for case in plan.cases if case.name not in gone], request.colours)
    gone |= {case.name for case in unlike}
    more = [
        LeftOut(path, "as asked") for case in plan.cases if case.name in gone
        for path in (*case.pair.images, *case.pair.masks)
    ]  # fmt: skip
    info = None if plan.target is None else read_info(plan.target)
    problems = {name: error for name, error in plan.problems.items() if name not in request.skip}
    problems |= _unlike(cases, plan.target)
    channels = request.channel_names or (names_of_channels(cases[0]) if cases else ())
    recognised, translation, question = _meaning(cases, plan.pieces, request, info)
    trouble = mixed_colours(cases) or channel_trouble(cases, channels, info, request.suffixes) or question
    return ImportPlan(
        cases=cases,
        channels=info.channel_names if info is not None else channels,
        left_out=(*plan.left_out, *more),
        problems=problems,
        recognised=recognised if request.objects is None else as_objects(recognised, request.objects),
        translation=None if question else translation,
        question=trouble,
        target=plan.target,
        pieces=plan.pieces,
    )


def _unlike(cases: Sequence[PlannedCase], target: Path | None) -> dict[str, NnunetError]:
    """Return the cases that differ from most in channels or dimensions, or that the dataset has already."""
    problems: dict[str, NnunetError] = unlike_channels(cases)
    for what, found in (
        ("channels", {case.name: case.channels for case in cases}),
        ("dimensions", {case.name: len(case.shape) for case in cases}),
    ):
        if what == "channels" and mixed_colours(cases):
            continue  # one question about all of them
        values = list(found.values())
        usual = max(sorted(set(values)), key=values.count) if values else None
        for name, value in found.items():
            if value != usual:
                problems[name] = DatasetError(f"it has {value} {what}, the others have {usual}")
    if target is not None:
        there = {case.name for case in survey(target)[0].cases}
        for case in cases:
            if case.name in there:
                problems[case.name] = DatasetError(f"{target.name} has a case of this name; rename the files")
    return problems


def _meaning(
    cases: Sequence[PlannedCase], pieces: Sequence[Pieces], request: ImportFoldersRequest, info: DatasetInfo | None
) -> tuple[Recognised | None, Translation | None, NnunetError | None]:
    """Return what the masks are, how they are translated, and the question that is open."""
    if not cases:
        return None, None, DatasetError("No case is left to import. Each needs an image, and a mask that is one file.")
    known = None if info is None else _single_labels(info)
    facts, numbers = named_alike({case.name: case.facts for case in cases}, known or ())
    recognised = recognise(facts, pieces)
    if all(case.few_values for case in cases) and max(f.distinct for f in facts.values()) > _MANY:
        text = "The images have a few whole values and the masks many: the two folders look swapped."
        return (
            recognised,
            None,
            DatasetError(
                text, shell="Give the images with -i and the masks with -m.", window="Press 'Swap the folders'."
            ),
        )
    try:
        known = None if info is None else labels_with(info, request.annotated)
        told = _told(facts, recognised, request)
        fractions = told.threshold is None and any(f.fractional for f in facts.values())
        if fractions or not (told.names_classes or told.threshold is not None):
            rest = recognise(without(facts, told.ignore), pieces) if told.ignore else recognised
            if fractions or not (rest.certain or _fits(facts, known)):
                return recognised, None, ask(rest, rest.sentence)
        if known is not None and not told.names_classes and (said := named_otherwise(cases, known, told.ignore)):
            return recognised, None, ask(recognised, said)
        translation, unnamed = translate(facts, told, known=known)
    except NnunetError as error:
        return recognised, None, error
    if translation is None:
        listed = some([f"{word} ({counted(count, 'voxel')})" for word, count in unnamed.items()])
        return recognised, None, ask(recognised, f"No class was given for the values {listed}.", unnamed=list(unnamed))
    if len(set(translation.values.values())) < 2:
        none = f"The masks contain only 0: there is no {'object' if request.objects else 'class'} to learn."
        return recognised, None, DatasetError(none, window="Choose another folder of masks.")
    return recognised, replace(translation, numbers=numbers), None


def _told(facts: Mapping[str, MaskFacts], recognised: Recognised, request: ImportFoldersRequest) -> Told:
    """Return what a request says of values; numbers of objects and files of classes say it of themselves.

    Raises
    ------
    DatasetError
        If the masks are none of objects where these are asked for, or have no degrees where there is a threshold.
    """
    if request.objects is not None:
        if below := {name: low for name, f in facts.items() if f.counts and (low := min(f.counts)) < 0}:
            name, low = next(iter(below.items()))
            raise DatasetError(
                f"{counted(len(below), 'mask has values', 'masks have values')} below 0 ({name}: {low:g}). Objects are "
                "numbered from 1, and 0 is background. Save them with 0 where no object is."
            )
        wrong = [name for name, f in facts.items() if f.fractional or f.classes or (f.lossy and f.distinct > 2)]
        if wrong:
            listed = some(wrong)
            raise DatasetError(
                f"The masks of {listed} hold fractions, classes or the values of a JPEG, not numbers of objects. Save "
                "them with a whole number of its own for every object and 0 elsewhere (16-bit PNG, TIFF or NIfTI)."
            )
        if bright := [name for name, f in facts.items() if f.colours and 0 not in f.counts]:
            raise DatasetError(
                f"The masks of {some(bright)} have nothing black: the background of objects in colours is black. Save "
                "them with a black background, or with a whole number of its own for every object and 0 elsewhere."
            )
        return Told({NONZERO: request.objects})
    told = as_meant(Told(request.mapping, request.class_names, request.ignore, request.threshold))
    if recognised.kind == "class files":
        if told.threshold is not None:
            raise DatasetError("Masks with one file per class have no threshold.")
        if recognised.certain and not told.names_classes:
            return replace(told, mapping=recognised.mapping)
    if recognised.certain and not told.names_classes and told.threshold is None:
        occurring = {int(value) for f in facts.values() for value in f.counts if value} - set(told.ignore)
        names = next((f.names for f in facts.values()), {})  # the same in all masks
        return replace(told, names={value: names[value] for value in sorted(occurring)} if names else {})
    return told


def _single_labels(info: DatasetInfo) -> dict[str, int]:
    """Return the classes of a dataset; of one with regions, the values they join."""
    if info.labels.has_regions:
        values = [*info.labels.all_labels, *([] if info.labels.ignore_label is None else [info.labels.ignore_label])]
        return {str(value): value for value in values}
    return {name: value for name, value in info.labels.labels.items() if isinstance(value, int)}


def labels_with(info: DatasetInfo, annotated: Sequence[str]) -> dict[str, int]:
    """Return the classes that masks can have in a dataset; of those that were looked for, new ones are the next.

    Raises
    ------
    DatasetError
        If a class would have to be added to regions, or below an ignore label.
    """
    labels = _single_labels(info)
    scheme = info.labels
    new = [name for name in annotated if name not in scheme.labels]
    if new and (scheme.has_regions or scheme.ignore_label is not None):
        why = "regions" if scheme.has_regions else "an ignore label, which must stay the highest"
        raise DatasetError(
            f"The dataset has no class {', '.join(new)}, and it cannot be added while importing: it has {why}.",
            shell="Add it to dataset.json first.",
            window="Add it under 'Edit dataset...' in the Training cases dock first.",
        )
    if not annotated or scheme.has_regions:
        return labels
    labels |= {name: max(scheme.all_labels) + i for i, name in enumerate(new, start=1)}
    return {name: value for name, value in labels.items() if name in (*annotated, BACKGROUND, IGNORE)}


def _fits(facts: Mapping[str, MaskFacts], known: Mapping[str, int] | None) -> bool:
    """Whether the values are those of the dataset that gets the cases; numbers of files with a class each are none."""
    if known is None or any(f.classes for f in facts.values()):
        return False
    return all(set(f.counts) <= set(known.values()) for f in facts.values())


def ask(recognised: Recognised, sentence: str, *, unnamed: Sequence[str] = ()) -> DatasetError:
    """Return the question what the values of masks mean: the table, and the proposal as it is typed."""
    table = "\n".join(f"  {line}" for line in table_lines(recognised.rows))
    proposal = words_of(recognised)
    if unnamed:
        listed = ",".join(unnamed[:6])
        ways = map_words({listed: "NAME"}), map_words({listed: "background"})
        way = f"Give each of these a class too, for instance --map {ways[0]}, or {ways[1]}."
    elif recognised.kind == "objects":
        way = (
            f"If every {'colour' if recognised.drawn else 'number'} is an object of its own, import with: --objects"
            f"\nIf all of them are one class: {proposal}\nIf every value is a class of its own: --map each=class"
        )
    elif proposal:
        way = f"If that is right, import with: {proposal}"
        if recognised.kind == "unclear" or (recognised.ignore or 0) > 0:
            way += "\nIf every value is a class of its own: --map each=class"
        way += "\nIf every coloured piece is an object of its own: --objects" * (recognised.kind == "colours")
    else:
        way = ""
    return DatasetError(
        f"{sentence} Nothing was written.\n{table}",
        shell=f"\n{way}" if way else "",
        window="\nChoose what each value becomes." if way else "",
    )


def words_of(recognised: Recognised) -> str:
    """Return a proposal as the flags of ``import_folders``; empty where there is none."""
    parts = []
    if recognised.mapping and recognised.ignore is None:  # what is left then are classes that need no word
        parts.append(f"--map {map_words(recognised.mapping)}")
    if recognised.threshold is not None:
        parts.append(f"--threshold {recognised.threshold:g}")
    if recognised.ignore is not None:
        parts.append(f"--ignore={recognised.ignore}")
    return " ".join(parts)


def table_lines(rows: Sequence[ValueRow]) -> list[str]:
    """Return the table of values as lines of text, the head first."""
    shown = [("value", "voxels", "share", "masks", "becomes")]
    shown += [(row.word, f"{row.voxels:,}", _percent(row.share), str(row.files), row.becomes) for row in rows[:_ROWS]]
    widths = [max(len(line[i]) for line in shown) for i in range(5)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in shown]
    return lines + ([f"... and {len(rows) - _ROWS} more"] if len(rows) > _ROWS else [])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else "< 0.1 %"
