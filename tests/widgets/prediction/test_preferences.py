"""What napari's preferences say of predictions is what the Segment dock begins with."""

from __future__ import annotations

import pytest


def test_preferences_set_the_defaults(make_napari_viewer, npe2pm, plugin_settings, qtbot):
    from napari.settings import get_plugin_settings

    from napari_nnunet.widgets.frame.preferences import Preferences, read_preferences

    with npe2pm.tmp_plugin(package="napari_nnunet"):
        viewer = make_napari_viewer(show=True)
        assert read_preferences() == Preferences()
        compute = get_plugin_settings("napari-nnunet").compute
        compute.tile_step, compute.mirroring, compute.device, compute.memory_gb = 0.75, False, "cpu", 3
        _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")
        settings = dock.form.settings()
        assert (settings.step, settings.mirroring, settings.device, settings.memory_gb) == (0.75, False, "cpu", 3)


@pytest.mark.parametrize(("preferred", "used"), [("bfloat16", "bfloat16"), ("int8", "auto"), ("auto", "auto")])
def test_the_precision_of_the_preferences_is_used_and_it_says_so(
    make_napari_viewer, npe2pm, plugin_settings, qtbot, preferred, used
):
    from napari.settings import get_plugin_settings

    with npe2pm.tmp_plugin(package="napari_nnunet"):
        viewer = make_napari_viewer(show=True)
        get_plugin_settings("napari-nnunet").compute.precision = preferred
        _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")
        assert dock.form.settings().precision == used
        assert dock.form.preferred.isVisibleTo(dock) == (preferred != "auto")
        if preferred == "int8":
            assert "was not quantised and uses auto" in dock.form.preferred.text()
