"""Training cases of numbered objects: what the layer says of them."""

from __future__ import annotations

from collections.abc import Sequence

from napari.layers import Labels

from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.widgets.frame.layers import class_names_of, kinds_of_features
from napari_nnunet.widgets.frame.ready import NotReadyError


def kinds_of_layer(
    labels: Labels, values: Sequence[int], scheme: ObjectScheme | None, kind: str | None
) -> dict[int, str] | None:
    """Return the kind of every object that a layer numbers; None where its values are classes.

    Parameters
    ----------
    labels : Labels
        The layer; the column ``kind`` of its features says of which kind its objects are, where that is needed.
    values : sequence of int
        That occur in it.
    scheme : ObjectScheme or None
        What the dataset says of objects; None for a dataset of classes, and for a new one.
    kind : str or None
        Of the objects of a new dataset.

    Raises
    ------
    NotReadyError
        If the layer holds classes or nothing, or does not say of which kind its objects are.
    """
    if scheme is None and kind is None:
        return None
    told = kinds_of_features(labels.features)
    if class_names_of(labels.features) and not told:
        raise NotReadyError(
            f"'{labels.name}' holds classes, and this dataset needs objects: a Labels layer in which every object has "
            "a number of its own."
        )
    numbers = [value for value in values if value]
    if not numbers:
        raise NotReadyError("The labels hold no object yet. Paint at least one, each with a number of its own.")
    if min(numbers) < 0:
        raise NotReadyError(f"'{labels.name}' has the value {min(numbers)}; objects are numbered from 1.")
    only = kind if scheme is None else scheme.only_kind
    if scheme is None or only is not None:
        return dict.fromkeys(numbers, str(only))
    unknown = [number for number in numbers if told.get(number) not in scheme.kinds]
    if unknown:
        raise NotReadyError(
            f"Of which kind is object {unknown[0]}? This dataset has {', '.join(scheme.kinds)}. Write it into the "
            "column 'kind' of the layer's features (Layers > Metadata > Features table widget)."
        )
    return {number: told[number] for number in numbers}
