"""Rows of forms: made of the fields of settings, and what is typed into them."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt
from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, SpinBox
from pydantic import BaseModel, Field

from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.widgets.frame.forms import field_widget
from napari_nnunet.widgets.frame.ready import NotReadyError, typed_spacing


class Settings(BaseModel):
    step: Annotated[float, Gt(0), Le(1)] = Field(0.5, title="Tile step", description="Of the tile.")
    epochs: Annotated[int, Ge(1), Lt(500)] = Field(100, title="Epochs", description="How long.")
    fast: bool = Field(True, title="Fast", description="Sooner.")
    method: Literal["soft", "hard"] = Field("hard", title="Method")
    name: str = Field("a", title="Name")
    memory: Annotated[float, Ge(0)] | None = Field(None, title="Memory (GB)")


@pytest.mark.usefixtures("qapp")
@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("step", FloatSpinBox, 0.5),
        ("epochs", SpinBox, 100),
        ("fast", CheckBox, True),
        ("method", ComboBox, "hard"),
        ("name", LineEdit, "a"),
    ],
)
def test_a_field_becomes_the_input_of_its_type_with_title_tool_tip_and_default(name, kind, value):
    widget = field_widget(Settings, name)
    field = Settings.model_fields[name]
    assert type(widget) is kind
    assert widget.value == value
    assert field.title in (widget.label, getattr(widget, "text", None))
    assert (widget.tooltip or "") == (field.description or "")


@pytest.mark.usefixtures("qapp")
def test_the_limits_of_a_field_are_those_of_its_input():
    step = field_widget(Settings, "step")
    assert (step.min, step.max) == (step.step, 1)
    epochs = field_widget(Settings, "epochs")
    assert (epochs.min, epochs.max) == (1, 499)


@pytest.mark.usefixtures("qapp")
def test_a_form_may_give_choices_or_a_value_of_its_own():
    name = field_widget(Settings, "name", choices=["a", "b"], value="b")
    assert (type(name), name.value) == (ComboBox, "b")
    assert field_widget(Settings, "memory", value=3).value == 3


@pytest.mark.usefixtures("qapp")
@pytest.mark.parametrize("name", ["step", "mirroring", "device", "backend", "precision", "threads", "memory_gb"])
def test_every_prediction_setting_can_be_a_row(name):
    field = PredictSettings.model_fields[name]
    widget = field_widget(PredictSettings, name)
    assert widget.value == field.default
    assert widget.tooltip == field.description


@pytest.mark.parametrize(
    ("text", "axes", "values"),
    [
        ("1 2 3", "ZYX", (1, 2, 3)),
        ("1,2,3", "ZYX", (1, 2, 3)),
        ("2 × 1 × 1", "ZYX", (2, 1, 1)),
        ("0.5x0.25", "YX", (0.5, 0.25)),
        ("1", "ZYX", (1, 1, 1)),
        ("0,5", "ZYX", (0.5, 0.5, 0.5)),
        ("0,5 0,25 0,25", "ZYX", (0.5, 0.25, 0.25)),
    ],
)
def test_voxel_sizes_are_understood_as_people_type_them(text, axes, values):
    assert typed_spacing(text, axes) == values


@pytest.mark.parametrize("text", ["abc", "1 2", "0 1 1", "-1", "nan", "1 2 inf", ""])
def test_what_is_no_voxel_size_is_refused_with_an_example(text):
    with pytest.raises(NotReadyError, match=r"type 3 positive numbers in mm, such as 0\.5 0\.5 0\.5, or one"):
        typed_spacing(text, "ZYX")
