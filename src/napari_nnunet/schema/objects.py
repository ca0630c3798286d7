"""Objects in dataset.json: which classes are core and border of which kind, under a key that nnU-Net passes over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_nnunet.errors import DatasetError
from napari_nnunet.schema.dataset import BACKGROUND, IGNORE, DatasetInfo
from napari_nnunet.schema.json_text import Real, Whole, first_problem

KEY = "napari_nnunet_objects"
_CORE, _BORDER = " core", " border"  # what names of classes end in


class ObjectScheme(BaseModel):
    """What a dataset says of its objects.

    Parameters
    ----------
    kinds : dict of str to (int, int)
        Kind of object to the values of its core and its border in the labels.
    width : float
        Width of the borders in network voxels.
    unit : float
        Edge of the network's finest voxel in mm, by which the borders were drawn.
    scores : dict of float to float
        Widths that were tried, and the mean average precision that a perfect network would reach with each.
    values : dict of int to str
        Kinds by their values in kindsTr; what the labels were drawn by.
    classes : dict of str to int
        Ordinary classes and their values in kindsTr.
    ignore : int or None
        Value in kindsTr of what nobody annotated.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kinds: dict[str, tuple[Whole, Whole]] = Field(min_length=1)
    width: Real = Field(gt=0, le=100)
    unit: Real = Field(gt=0)
    scores: dict[float, float] = {}
    values: dict[int, str] = {}
    classes: dict[str, Whole] = {}
    ignore: Whole | None = None

    @classmethod
    def of(cls, info: DatasetInfo) -> ObjectScheme | None:
        """Return what a dataset.json says of objects; None for an ordinary dataset.

        Raises
        ------
        DatasetError
            If the key is there but cannot be understood, or names values that are no classes.
        """
        content = info.raw.get(KEY)
        if content is None:
            return None
        try:
            found = cls.model_validate(content)
        except ValidationError as error:
            raise DatasetError(f"dataset.json: '{KEY}' cannot be read: {first_problem(error)}") from error
        values = found.learnt
        known = info.labels.foreground_labels
        wrong = sorted({value for value in values if value not in known or values.count(value) > 1})
        if wrong or info.labels.has_regions:
            raise DatasetError(
                f"dataset.json: '{KEY}' gives cores and borders the values {', '.join(map(str, values))}, but each "
                f"must be a class of its own; the classes are {', '.join(map(str, known))}."
            )
        return found

    def write_into(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of a dataset.json with these objects."""
        return {**content, KEY: self.model_dump(mode="json")}

    @property
    def learnt(self) -> tuple[int, ...]:
        """The classes that stand for cores and borders."""
        return tuple(value for pair in self.kinds.values() for value in pair)

    @property
    def mask_values(self) -> dict[str, int]:
        """What stands for each kind in a mask of kinds: as in kindsTr, or else 1, 2, 3, ..."""
        told = {kind: value for value, kind in self.values.items()}
        return {kind: told[kind] if set(told) >= set(self.kinds) else i for i, kind in enumerate(self.kinds, start=1)}

    @property
    def only_kind(self) -> str | None:
        """The kind of all objects, if there is but one."""
        return next(iter(self.kinds)) if len(self.kinds) == 1 else None


def forgotten_objects(info: DatasetInfo) -> str:
    """Return what is to be said of classes that are called like cores and borders while nothing says of objects.

    Empty for all others.
    """
    names = info.labels.labels
    kinds = [name.removesuffix(_CORE) for name in names if name.endswith(_CORE)]
    pairs = [f"'{kind}{_CORE}' and '{kind}{_BORDER}'" for kind in kinds if f"{kind}{_BORDER}" in names]
    if KEY in info.raw or not pairs:
        return ""
    return (
        f"The classes {', '.join(pairs)} are called like cores and borders of numbered objects, but the model's "
        f"dataset.json lacks '{KEY}', which says that they are: classes are returned, and no objects. If the model "
        "learnt from numbered objects, copy that entry from the dataset.json of the dataset it was trained on."
    )


@dataclass(frozen=True)
class ObjectNumbers:
    """Numbered objects as the values of a label image, which have neither names nor colours of their own.

    Parameters
    ----------
    dtype : str
        "uint16", or "uint32" where there are more.
    """

    dtype: str

    @property
    def names(self) -> dict[int, str]:
        """No value has a name."""
        return {}


RULES_FILE = "object_rules.json"


class ObjectRule(BaseModel):
    """How probabilities of one kind become objects; see :class:`napari_nnunet.engine.objects.decode.Rule`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    seed: float = Field(0.5, ge=0, le=1)
    inside: float = Field(0.5, ge=0, le=1)
    smallest: int = Field(1, ge=1)
    smallest_seed: int = Field(1, ge=1)
    split: float | None = Field(None, gt=0)
    neck: float | None = Field(None, gt=0, lt=1)
    sure: float = Field(0.0, ge=0, le=1)

    @classmethod
    def mean(cls, rules: list[ObjectRule]) -> ObjectRule:
        """Return the rule for several folds together; the default for none.

        Seeds are cut where most folds cut them, and by the measure of necks that most of these use.
        """
        if not rules:
            return cls()
        count = len(rules)
        necks = [rule.neck for rule in rules if rule.neck is not None]
        cuts = [rule.split for rule in rules if rule.neck is None and rule.split is not None]
        cut, by_share = 2 * (len(necks) + len(cuts)) > count, len(necks) >= len(cuts)
        return cls(
            seed=sum(rule.seed for rule in rules) / count,
            inside=sum(rule.inside for rule in rules) / count,
            smallest=round(sum(rule.smallest for rule in rules) / count),
            smallest_seed=round(sum(rule.smallest_seed for rule in rules) / count),
            split=sum(cuts) / len(cuts) if cut and not by_share else None,
            neck=sum(necks) / len(necks) if cut and by_share else None,
            sure=sum(rule.sure for rule in rules) / count,
        )


class ObjectRules(BaseModel):
    """What was found best on the validation cases of a fold; lies as ``object_rules.json`` in its folder.

    Parameters
    ----------
    rules : dict of str to ObjectRule
        By kind.
    score : float
        Mean average precision at IoU 0.5 to 0.95 of the validation cases with these rules.
    cases : int
        Their number.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    rules: dict[str, ObjectRule]
    score: float = 0.0
    cases: int = 0

    @classmethod
    def mean(cls, known: Sequence[ObjectRules]) -> ObjectRules:
        """Return the rules of several folds or models together."""
        kinds = dict.fromkeys(kind for found in known for kind in found.rules)
        return cls(
            rules={
                kind: ObjectRule.mean([found.rules[kind] for found in known if kind in found.rules]) for kind in kinds
            },
            score=sum(found.score for found in known) / max(1, len(known)),
            cases=sum(found.cases for found in known),
        )


def labels_with_objects(
    kinds: list[str], classes: Mapping[str, int], *, ignore: bool
) -> tuple[dict[str, int], dict[str, tuple[int, int]], dict[int, int]]:
    """Return the labels of a dataset with objects beside ordinary classes.

    Parameters
    ----------
    kinds : list of str
        Kinds of object.
    classes : mapping of str to int
        Ordinary classes and the values they have now.
    ignore : bool
        Whether some voxels were not annotated.

    Returns
    -------
    labels : dict of str to int
        For dataset.json: background, a core and a border for every kind, the classes, and ignore.
    values : dict of str to (int, int)
        Kind to its core and border.
    renumbered : dict of int to int
        Present values of the classes to those in `labels`.
    """
    labels = {BACKGROUND: 0}
    values = {}
    for kind in kinds:
        values[kind] = (len(labels), len(labels) + 1)
        labels[f"{kind}{_CORE}"], labels[f"{kind}{_BORDER}"] = values[kind]
    renumbered = {}
    for name, value in classes.items():
        renumbered[value] = labels[name] = len(labels)
    if ignore:
        labels[IGNORE] = len(labels)
    return labels, values, renumbered
