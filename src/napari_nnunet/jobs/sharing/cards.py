"""Cards of models: made from what a folder holds, read, and shown as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from napari_nnunet.errors import NnunetError, SettingsError, counted
from napari_nnunet.formats.model.card import CARD_FILE, THUMBNAIL, CardModel, ModelCard, classes_of
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.results.inference_information import INFORMATION, read_best
from napari_nnunet.formats.results.summary import find_summary
from napari_nnunet.schema.json_text import read_json
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.sharing import ExportSettings
from napari_nnunet.version import __version__


def make_card(
    models: Sequence[TrainedModel],
    folds: dict[str, tuple[Fold, ...]],
    settings: ExportSettings,
    hashes: dict[str, dict[str, str]] | None = None,
) -> ModelCard:
    """Return the card of some models."""
    first = models[0]
    dataset = first.folder.parent
    unknown = set(settings.card) - {"title", "description", "authors", "licence", "citation"}
    if unknown:
        raise SettingsError(f"A model card has no field {', '.join(sorted(unknown))}.")
    best: tuple[str, ...] = ()
    if (dataset / INFORMATION).is_file():
        best = tuple(model.folder for model in read_best(dataset).models)
    return ModelCard(
        dataset=dataset.name,
        channels=first.dataset.channel_names,
        classes=classes_of(first.dataset),
        models=tuple(card_model(m, folds[m.folder.name], (hashes or {}).get(m.folder.name)) for m in models),
        best=best,
        file_ending=first.dataset.file_ending,
        created=datetime.now(UTC).date().isoformat(),
        program=f"napari-nnunet {__version__}",
        thumbnail=THUMBNAIL if settings.thumbnail else "",
        **{"title": dataset.name, **settings.card},
    )


def card_model(model: TrainedModel, folds: Sequence[Fold], hashes: dict[str, str] | None = None) -> CardModel:
    """Return a card's entry for one model."""
    scores = [find_summary(model.folder / f"fold_{fold}" / "validation") for fold in folds]
    known = [score for score in scores if score is not None]
    per_class: dict[str, float] = {}
    names = {str(value): name for name, value in model.dataset.labels.labels.items()}
    for label in known[0].mean if known else ():
        values = [score.class_dice[label] for score in known if label in score.mean]
        values = [value for value in values if math.isfinite(value)]
        if values:
            per_class[names.get(label, label)] = sum(values) / len(values)
    means = [score.dice for score in known if math.isfinite(score.dice)]
    return CardModel(
        folder=model.folder.name,
        configuration=model.configuration.name,
        spacing=model.configuration.spacing,
        patch=model.configuration.patch_size,
        folds=tuple(str(fold) for fold in folds),
        cases=sum(len(score.cases) for score in known),
        dice=sum(means) / len(means) if means else None,
        dice_per_class=per_class,
        sha256=hashes or {},
    )


def read_card(folder: Path) -> ModelCard | None:
    """Return the card in a dataset's folder of results, None if there is none."""
    try:
        return ModelCard.parse(read_json(folder / CARD_FILE, NnunetError), where=str(folder / CARD_FILE))
    except NnunetError:
        return None


def card_text(card: ModelCard) -> str:
    """Return a card as some lines of text."""
    lines = [card.title or card.dataset]
    lines += [card.description] if card.description else []
    lines.append(f"Channels: {', '.join(card.channels)}")
    lines.append(f"Classes: {', '.join(entry.name for entry in card.classes)}")
    for model in card.models:
        spacing = " x ".join(f"{s:g}" for s in model.spacing)
        score = "" if model.dice is None else f", Dice {model.dice:.3f} in {model.cases} validation cases"
        lines.append(f"{model.configuration}: {spacing} mm, {counted(len(model.folds), 'fold')}{score}")
    for name in ("authors", "licence", "citation"):
        if getattr(card, name):
            lines.append(f"{name.capitalize()}: {getattr(card, name)}")
    return "\n".join(lines)
