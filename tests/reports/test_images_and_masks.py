"""Images and masks as people have them are taken rightly, or refused with the remedy."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.real
