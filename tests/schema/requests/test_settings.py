"""Settings are checked when they are made, and what was given is told from what holds anyway."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.requests.option import GridSettings
from napari_nnunet.schema.requests.prediction import PredictRequest, PredictSettings, preset


@pytest.mark.parametrize("change", [{"step": 0}, {"step": 1.5}, {"backend": "tensorflow"}, {"nonsense": 1}])
def test_settings_outside_their_bounds_are_refused(change):
    with pytest.raises(ValidationError):
        PredictSettings().replace(**change)


def test_presets_choose_folds_mirroring_and_step():
    base = PredictSettings(device="cpu")
    fast = preset("fast", folds=(0, 1, 2), base=base)
    assert (fast.folds, fast.mirroring, fast.step, fast.device) == ((0,), False, 0.75, "cpu")
    full = preset("full", folds=(0, 1, 2), base=base)
    assert (full.folds, full.mirroring, full.step) == ((0, 1, 2), True, 0.5)


def test_a_setting_that_does_not_exist_names_those_that_do():
    with pytest.raises(SettingsError, match="There is no setting 'steps'. Known: .*step"):
        PredictSettings.of(steps=0.5)


def test_a_wrong_value_is_named_by_its_flag_for_a_shell_and_by_its_title_for_a_window():
    with pytest.raises(SettingsError) as raised:
        PredictSettings.of(step=2)
    assert "The setting 'step' (-step_size) cannot be 2: " in raised.value.message
    assert "The setting 'Tile step' cannot be 2: " in raised.value.in_window


def test_what_was_given_stays_given_and_wins_over_what_it_is_joined_with():
    given = PredictSettings(mirroring=True)
    assert given.model_fields_set == {"mirroring"}  # though it is what holds anyway
    joined = PredictSettings.like(given, step=0.75)
    assert joined.model_fields_set == {"mirroring", "step"} and joined.replace(step=0.5).step == 0.5


def test_a_part_of_a_request_keeps_what_was_given():
    whole = PredictRequest.of(dataset="4", configuration="2d", source="in", target="out", step=0.75)
    assert whole.only(PredictSettings) == PredictSettings(step=0.75)
    assert whole.only(PredictSettings).model_fields_set == {"step"}


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(SettingsError, match="Give either --ignore_geometry or --resample_channels"):
        GridSettings.of(ignore_geometry=True, resample_channels=True)
    assert GridSettings().apart == "refuse"
