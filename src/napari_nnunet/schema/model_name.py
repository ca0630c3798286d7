"""Names of models and ensembles, which are names of folders: nnU-Net finds a model by them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from napari_nnunet.errors import ModelError
from napari_nnunet.schema.names import Fold, fault_of, typed

DEFAULT_TRAINER = "nnUNetTrainer"
DEFAULT_PLANS = "nnUNetPlans"
_BETWEEN = "__"
_AROUND = "___"


def continued_plans(plans: str, taken: Collection[str] = ()) -> str:
    """Return the name for the plans of a model that is continued: never its own, nor one that is taken."""
    stem, number = re.sub(r"_continued\d*$", "", plans), 1
    while (name := f"{stem}_continued" + (str(number) if number > 1 else "")) in (plans, *taken):
        number += 1
    return name


@dataclass(frozen=True)
class ModelName:
    """A model by the three names its folder is made of.

    Parameters
    ----------
    trainer, plans, configuration : str
        As in ``TRAINER__PLANS__CONFIGURATION``.

    Raises
    ------
    ModelError
        If one of them cannot be part of that folder's name.
    """

    trainer: str
    plans: str
    configuration: str

    def __post_init__(self) -> None:
        for what in ("trainer", "plans", "configuration"):
            name = getattr(self, what)
            if fault_of(name) is not None or _BETWEEN in name:
                raise ModelError(
                    f"The {what} of a model is named {name!r:.200}, which cannot be part of the folder's name "
                    "TRAINER__PLANS__CONFIGURATION; use letters, digits, '.', '-' and single '_'."
                )

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Read the name of a model's folder; raises ModelError if it is not three names joined by '__'."""
        parts = text.split(_BETWEEN)
        if len(parts) != 3:
            raise ModelError(
                f"{text!r:.200} is not the name of a model; names are TRAINER__PLANS__CONFIGURATION, such as "
                "nnUNetTrainer__nnUNetPlans__3d_fullres."
            )
        return cls(*parts)

    @classmethod
    def of(cls, text: str) -> ModelName | None:
        """Read the name of a folder that people may have renamed; None if it is not a model's name."""
        try:
            return cls.parse(text)
        except ModelError:
            return None

    @property
    def folder(self) -> str:
        """Name of the model's folder."""
        return _BETWEEN.join((self.trainer, self.plans, self.configuration))

    @property
    def label(self) -> str:
        """The configuration, and trainer and plans where they are not nnU-Net's usual ones, for people."""
        usual = (DEFAULT_TRAINER, DEFAULT_PLANS)
        more = ", ".join(name for name in (self.trainer, self.plans) if name not in usual)
        return f"{self.configuration} ({more})" if more else self.configuration

    @property
    def flags(self) -> str:
        """What the command line needs besides the configuration: nothing if both names are the usual ones."""
        plans = f" -p {typed(self.plans)}" if self.plans != DEFAULT_PLANS else ""
        return plans + (f" -tr {typed(self.trainer)}" if self.trainer != DEFAULT_TRAINER else "")


def label_of(folder: str) -> str:
    """Return a short name for people of a model's folder, which may have been renamed."""
    name = ModelName.of(folder)
    return name.label if name is not None else folder


@dataclass(frozen=True)
class EnsembleName:
    """An ensemble by its members, the folder in ``ensembles`` that its results lie in.

    Parameters
    ----------
    members : tuple of str
        Names of the members' folders.
    folds : tuple of str
        That count.
    """

    members: tuple[str, ...]
    folds: tuple[str, ...]

    @classmethod
    def join(cls, members: Iterable[str], folds: Iterable[Fold]) -> EnsembleName:
        """Return the name of some members, averaged over some folds."""
        return cls(tuple(members), tuple(str(fold) for fold in folds))

    @classmethod
    def of(cls, text: str) -> EnsembleName | None:
        """Read a folder's name; None if it is no ensemble's."""
        first, *members, folds = text.split(_AROUND) if text.count(_AROUND) > 1 else ("", "")
        return cls(tuple(members), tuple(folds.split("_"))) if first == "ensemble" else None

    @property
    def folder(self) -> str:
        """Name of the folder."""
        return _AROUND.join(("ensemble", *self.members, "_".join(self.folds)))
