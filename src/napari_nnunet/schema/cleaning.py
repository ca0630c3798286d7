"""What nnU-Net's postprocessing does to a segmentation, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.dataset import LabelScheme, Region

#: A label, a region (a tuple of labels), or a list: the union of what is in it.
Target = Region | list[Region]

FUNCTION = "remove_all_but_largest_component_from_segmentation"


class Step(BaseModel):
    """Keep the largest connected part of something, and make the rest background.

    Parameters
    ----------
    target : int, tuple of int, or list of these
        What is taken together.
    background : int
        What removed voxels become.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    target: Target
    background: int = 0

    def describe(self, scheme: LabelScheme | None = None) -> str:
        """Say in words what is kept."""
        if isinstance(self.target, list):
            return "the largest part of the foreground"
        names = {} if scheme is None else {value: name for name, value in scheme.labels.items()}
        return f"the largest part of {names.get(self.target, self.target)}"


class Cleaning(BaseModel):
    """Steps, carried out in their order.

    Parameters
    ----------
    steps : tuple of Step
        None: nothing is done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, targets: Sequence[Target]) -> Cleaning:
        """Return the steps for some targets, with background 0."""
        return cls(steps=tuple(Step(target=target) for target in targets))

    @classmethod
    def of_words(cls, words: Sequence[str]) -> Cleaning:
        """Return the steps that words name: "1" a label, "1,2" a region of labels, "1+2" several of these together.

        Raises
        ------
        SettingsError
            If a word is none of them.
        """
        targets: list[Target] = []
        for word in words:
            try:
                parts = [tuple(int(label) for label in part.split(",")) for part in word.split("+")]
            except ValueError as error:
                raise SettingsError(
                    f"'{word}' names no labels. Write 1 for a label, 1,2 for a region, 1+2 for labels taken together."
                ) from error
            regions: list[Region] = [part[0] if len(part) == 1 else part for part in parts]
            targets.append(regions[0] if len(regions) == 1 else regions)
        return cls.of(targets)

    def words(self) -> list[str]:
        """Return what :meth:`of_words` reads."""
        return [target_word(step.target) for step in self.steps]

    def names(self) -> list[str]:
        """Return nnU-Net's function names, for postprocessing.json."""
        return [FUNCTION] * len(self.steps)

    def arguments(self) -> list[dict[str, Any]]:
        """Return nnU-Net's arguments, one dictionary per step."""
        return [
            {
                "labels_or_regions": step.target,
                **({} if step.background == 0 else {"background_label": step.background}),
            }
            for step in self.steps
        ]

    def describe(self, scheme: LabelScheme | None = None) -> str:
        """Say in words what is kept; empty if nothing is done."""
        return ", then ".join(step.describe(scheme) for step in self.steps)


def target_word(target: Target) -> str:
    """Return a target as one word: "1", "1,2" or "1+2"."""
    if isinstance(target, list):
        return "+".join(target_word(region) for region in target)
    return ",".join(map(str, target)) if isinstance(target, tuple) else str(target)


def candidates(evaluated: Sequence[Region]) -> tuple[Region, ...]:
    """Return what is tried one by one after the foreground: nothing if there is one label only."""
    return tuple(evaluated) if len(evaluated) > 1 else ()
