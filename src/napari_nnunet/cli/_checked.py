"""Wrong values of flags, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from napari_nnunet.errors import SettingsError


@contextmanager
def checked() -> Iterator[None]:
    """Turn what the settings' models refuse into a SettingsError that names the setting and its value."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"The setting '{name}' cannot be {first['input']!r}: {first['msg']}.") from error
