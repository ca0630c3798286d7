"""Whether preprocessed cases are up to date: told by what they were made from, wherever that lies now.

What counts is the content of a case's files and what the plans say of preprocessing. Size and time of the files are
noted beside, so that files are read again only where these differ: after a workspace was copied, say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from napari_nnunet.errors import DatasetError, NnunetError, ResourceError, SettingsError, counted, some
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.dataset.raw_dataset import RawDataset, TrainingCase, survey
from napari_nnunet.formats.model.fold import folds_in_use
from napari_nnunet.formats.preprocessed.cases import MADE_ANEW, damage_of, preprocessed_files
from napari_nnunet.formats.preprocessed.digests import changed_files, facts_of_files, is_touched
from napari_nnunet.formats.preprocessed.journal import BETWEEN, FilesFacts, Journal, how_joined, joined_at, usual
from napari_nnunet.formats.regular import regular
from napari_nnunet.formats.workspace import stamp
from napari_nnunet.grid import WhenApart
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.plans import Configuration, Plans
from napari_nnunet.volume import by_text

_VERSION = 1  # raise it when preprocessing gives other numbers: everything is then made again


def rules_of(plans: Plans, configuration: Configuration, dataset: RawDataset) -> str:
    """Return a digest of everything that decides what preprocessing writes, but for the case itself.

    The patch is not in it: it decides how the arrays are cut into chunks, not what they hold.
    """
    rules = {
        "version": _VERSION,
        "reader": plans.reader,
        "transpose": plans.transpose_forward,
        "intensities": [statistics.model_dump() for statistics in plans.intensities],
        "labels": dataset.info.labels.model_dump(mode="json"),
        "spacing": configuration.spacing,
        "schemes": configuration.normalization_schemes,
        "masks": configuration.use_mask_for_norm,
        "resampling": [configuration.resample_data.model_dump(), configuration.resample_seg.model_dump()],
    }
    return hashlib.sha256(json.dumps(rules, sort_keys=True, default=list).encode()).hexdigest()


def files_digest(cases: Iterable[TrainingCase]) -> str:
    """Return a digest of names, sizes and times of all files of cases; raises OSError where one is gone."""
    digest = hashlib.sha256()
    for case in cases:
        for path in (*case.images, case.label):
            status = path.stat()
            digest.update(f"{case.name} {path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def content_of(case: TrainingCase) -> str:
    """Return a digest of what a case's files hold; reads all of them, and raises DatasetError where it cannot."""
    return contents_of(case)[0]


def contents_of(case: TrainingCase) -> tuple[str, str]:
    """Return :func:`content_of` a case, and the same of its images alone."""
    digest, images = hashlib.sha256(), ""
    for path in (*case.images, case.label):
        images = digest.hexdigest()
        try:
            with regular(path).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest(), images


def made_from(case: TrainingCase, rules: str, content: str, apart: WhenApart = "refuse") -> str:
    """Return what the journal says of a case: rules, size and time of its files, what they hold, what joined them."""
    return BETWEEN.join((rules, _seen(case), content, *(() if apart == "refuse" else (apart,))))


def _seen(case: TrainingCase) -> str:
    digest = hashlib.sha256()
    for path in (*case.images, case.label):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def stale_cases(
    cases: Sequence[TrainingCase], rules: str, journal: Journal, apart: WhenApart | None = None
) -> list[TrainingCase]:
    """Return the cases that are new, changed or were planned otherwise since they were preprocessed.

    Files that were copied or touched are read once more; that they hold the same is noted.

    Parameters
    ----------
    cases, rules, journal
        What there is, how it is to be made, what was made.
    apart : {"refuse", "resample", "ignore"}, optional
        What is done with channels that lie apart; cases that were made otherwise are stale. None takes either.
    """
    finished = journal.read()
    stale = []
    for case in cases:
        digest = finished.get(case.name, "")
        before, seen, content = (*digest.split(BETWEEN), "", "")[:3]
        made = how_joined(digest)
        if before != rules or apart not in (None, made):
            stale.append(case)
        elif seen != _seen(case):
            if content != content_of(case):
                stale.append(case)
                continue
            with suppress(ResourceError):  # then they are read again the next time
                journal.note([case.name], made_from(case, rules, content, made))
    return stale


def look_at_unrecorded(raw: Path, data: Path, names: Sequence[str]) -> Job[None]:
    """Say what cannot be known of preprocessed cases without a journal: those of nnU-Net, or whose journal is gone.

    Parameters
    ----------
    raw : Path
        The raw dataset, which may be gone.
    data : Path
        Folder of the preprocessed cases.
    names : sequence of str
        Of these cases.
    """
    journal = Journal.of(data)
    if journal.read() or not (raw / "dataset.json").is_file():
        return
    try:
        cases = survey(raw)[0].cases
    except NnunetError:
        return  # nnU-Net trains without the raw dataset, too
    newer = []
    for case in cases:
        made = stamp(preprocessed_files(data, case.name)[2])
        files = [mine for path in (*case.images, case.label) if (mine := stamp(path)) is not None]
        if made is not None and any(time > made[0] for time, _ in files):
            newer.append(case.name)
    left = [case.name for case in cases if case.name not in set(names)]
    text = (
        f"{data.name} was preprocessed by nnU-Net, or {journal.path.name} beside it is gone: whether images and labels "
        "are still those that were preprocessed cannot be checked."
    )
    if newer:
        text += f" Files of {counted(len(newer), 'case')} are newer than that ({some(newer)})."
    if left:
        text += f" Not preprocessed, and not trained with: {some(left)} ({counted(len(left), 'case')})."
    yield Note(level="warning" if newer or left else "info", text=f"{text} Preprocess again where they were changed.")


def look_at_stored(data: Path, names: Sequence[str]) -> Job[None]:
    """Refuse cases whose files do not hold what preprocessing wrote; what was only copied or touched is noted anew.

    Blosc2 has no checksums: nearly every flipped bit of an image would be another value, without an error. Files that
    visibly are damaged are left to who opens them.

    Parameters
    ----------
    data : Path
        Folder of the preprocessed cases.
    names : sequence of str
        Of these cases.

    Raises
    ------
    DatasetError
        If some of them were changed. Where every file of every case was written again since, and every case holds
        something else, another program preprocessed them anew, which is said and noted: it may well have written the
        same labels, byte by byte, but damage does not touch all files. Of a single case every file must hold
        something else, for a copy of it is written again wholly, too.
    """
    journal = Journal.of(data)
    there = set(names)
    written = {name: files for name, files in journal.stored().items() if name in there and files}
    touched = {name: files for name, files in written.items() if is_touched(data, files)}
    if not touched:
        return
    yield Stage(name=f"Comparing {counted(len(touched), 'preprocessed case')}", total=len(touched))
    made, altered = journal.read(), dict[str, FilesFacts]()
    for done, (name, files) in enumerate(touched.items(), start=1):
        now = facts_of_files(data, name)
        if not changed_files(files, now):
            with suppress(ResourceError):  # then they are read again the next time
                _note_files(journal, made, name, now)
        elif not damage_of(data, name):
            altered[name] = now
        yield Progress(done=done, total=len(touched))
    if len(altered) == len(there) and all(
        _is_written_anew(written[name], now, len(there)) for name, now in altered.items()
    ):
        yield Note(
            level="warning",
            text=f"Another program wrote all preprocessed cases in {data} again: whether images and labels are still "
            "those that it preprocessed cannot be checked. Preprocess again where they were changed.",
        )
        with suppress(ResourceError):  # what is there now is what later changes, and cases that are added, differ from
            for name, now in altered.items():
                _note_files(journal, made, name, now)
    elif altered:
        raise DatasetError(
            f"{len(altered)} of {len(names)} preprocessed cases in {data} do not hold what preprocessing wrote "
            f"({some(list(altered))}): their files were changed since, or damaged.",
            **MADE_ANEW,
        )


def _is_written_anew(before: FilesFacts, now: FilesFacts, cases: int) -> bool:
    """Whether all files of an altered case were written again; of a single case, whether all hold something else."""
    if cases == 1:
        return len(changed_files(before, now)) == len(before)
    return all(name in now and now[name][:2] != facts[:2] for name, facts in before.items())


def _note_files(journal: Journal, made: Mapping[str, str], name: str, now: FilesFacts) -> None:
    """Note what the files of a case are now; a damaged journal may not say what the case was made from."""
    if name in made:
        journal.note([name], made[name], now)


_AGAIN = {
    "ignore": "voxels are taken as they lie, whatever the headers say, as before",
    "resample": "channels on other grids are interpolated onto the first one, as before",
}


@dataclass(frozen=True)
class Gathering:
    """What is done with files of cases that lie apart.

    Parameters
    ----------
    others : {"refuse", "resample", "ignore"}
        Of all cases but those that are known.
    known : mapping of str to WhenApart
        Cases that were preprocessed before, and how.
    """

    others: WhenApart
    known: Mapping[str, WhenApart] = field(default_factory=dict)

    @classmethod
    def before(cls, base: Path) -> Gathering:
        """Return what was done before in a dataset; with new cases as with all others, if all were joined alike."""
        known = joined_at(base)
        return cls(usual(known), known)

    def of_case(self, name: str) -> WhenApart:
        """Return what is done with the files of a case."""
        return self.known.get(name, self.others)

    def said(self, names: Iterable[str]) -> Iterator[Note]:
        """Say what is done because it was done before, not because it was asked for."""
        if self.known:
            found = {name: [_AGAIN[how]] for name in names if (how := self.of_case(name)) != "refuse"}
            yield from (Note(text=f"{cases}: {text}.") for cases, text in by_text(found))


def refuse_training(results: Path, base: Path, identifiers: Sequence[str]) -> None:
    """Refuse to change cases that a training reads.

    Parameters
    ----------
    results, base : Path
        ``nnUNet_results``, and the dataset's folder in nnUNet_preprocessed.
    identifiers : sequence of str
        Names of the folders of the cases.

    Raises
    ------
    SettingsError
        If a training reads one of them.
    """
    for fold in folds_in_use(results, base.name):
        name = ModelName.parse(fold.path.parent.name)
        path = base / f"{name.plans}.json"
        plans = Plans.read(path) if path.is_file() else None
        if plans is not None and plans.configuration(name.configuration).data_identifier in identifiers:
            raise SettingsError(
                f"Fold {fold.fold} of {fold.path.parent.name} is being trained with cases that would be changed. Wait "
                "for it, or pause it."
            )
