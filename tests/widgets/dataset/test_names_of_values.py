"""The names in the table of painted values are those of the layer that is chosen, as they were typed last."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_nnunet.widgets.dataset import class_table
from napari_nnunet.widgets.dataset.case_form import CaseForm
from napari_nnunet.widgets.dataset.case_request import SLICE


@pytest.fixture
def form(qtbot, home):
    """The form over an image; :func:`painted` adds what is painted over it."""
    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 8, 8)), name="image")
    form = CaseForm(viewer)
    qtbot.addWidget(form)
    return form


def painted(form, name, *classes):
    data = np.zeros((3, 8, 8), int)
    data[0, 0], data[1, 1] = 1, 2
    features = {"index": range(len(classes) + 1), "name": ["background", *classes]} if classes else None
    layer = form.viewer.add_labels(data, name=name, features=features)
    form.labels_box.value = layer
    return layer


def names(form):
    return {entry.value: entry.name for entry in form.table.painted() if entry.value}


def type_name(form, row, name):
    form.table.item(row, 2).setText(name)


def test_another_layer_has_the_classes_that_it_says_itself(form):
    first = painted(form, "A", "liver", "spleen")
    second = painted(form, "B", "kidney", "bladder")
    assert names(form) == {1: "kidney", 2: "bladder"}
    type_name(form, 1, "ureter")
    form.labels_box.value = first
    assert names(form) == {1: "liver", 2: "spleen"}
    form.labels_box.value = second
    assert names(form) == {1: "ureter", 2: "bladder"}


def test_what_was_typed_for_a_layer_holds_for_others_that_say_nothing(form):
    painted(form, "A")
    type_name(form, 1, "liver")
    painted(form, "B")
    assert names(form) == {1: "liver", 2: "class_2"}
    painted(form, "C", "kidney")
    assert names(form) == {1: "kidney", 2: "class_2"}


def test_one_class_of_all_objects_holds_for_other_layers_too(form):
    for name in "AB":
        layer = painted(form, name)
        layer.data[2, 2:8, 0] = range(3, 9)
        layer.events.paint(value=[])
        if name == "A":
            assert form.table.many
            form.table.name_all("cell")
        assert set(names(form).values()) == {"cell"}


def test_a_name_that_was_put_right_stays_so(form):
    painted(form, "A", "liver", "spleen")
    form.extent_box.value = SLICE
    for typed in ("lver", "liver"):
        form.viewer.dims.set_current_step(0, 0)
        type_name(form, 1, typed)
        for place in (1, 0):
            form.viewer.dims.set_current_step(0, place)
        assert names(form) == {1: typed}


@pytest.mark.parametrize("put_right", ["A", "B"])
def test_a_name_that_another_layer_has_from_this_one_is_put_right_for_one_of_them(form, put_right):
    layers = {"A": painted(form, "A")}
    type_name(form, 1, "kidney")
    layers["B"] = painted(form, "B")
    assert names(form)[1] == "kidney"
    form.labels_box.value = layers[put_right]
    type_name(form, 1, "class_1")
    for _ in range(2):
        for name, layer in layers.items():
            form.labels_box.value = layer
            assert names(form)[1] == ("class_1" if name == put_right else "kidney"), name


def test_the_one_class_of_another_layer_is_put_right(form):
    first = painted(form, "A")
    first.data[2, 2:8, 0] = range(3, 9)
    first.events.paint(value=[])
    form.table.name_all("cell")
    second = painted(form, "B")
    assert names(form) == {1: "cell", 2: "cell"}
    type_name(form, 1, "class_1")
    form.labels_box.value = first
    form.labels_box.value = second
    assert names(form) == {1: "class_1", 2: "cell"}


def test_nothing_of_the_layer_before_is_shown_while_another_is_counted(form, qtbot, monkeypatch):
    painted(form, "A", "liver", "spleen")
    monkeypatch.setattr(class_table, "_QUICK_VOXELS", 10)
    painted(form, "B", "kidney", "bladder")
    assert names(form) == {}
    qtbot.waitUntil(lambda: names(form) == {1: "kidney", 2: "bladder"})
