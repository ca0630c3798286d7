"""What the package index shows of the project: the README with whole addresses, and where the project lives.

Links and pictures of README.md are relative, so that they work wherever the sources are looked at; an index and napari's
hub need whole addresses. All come from one setting, ``tool.hatch.metadata.hooks.custom.address`` in pyproject.toml: the
address of the repository (hatch-fancy-pypi-readme would repeat it in every rule, and cannot fill ``urls``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"(!\[[^\]]*\]\()(?!https?://|#)([^)\s]+)\)")
_LINK = re.compile(r"((?<!!)\[(?:[^\]\[]|!\[[^\]]*\]\([^)]*\))*\]\()(?!https?://|#|mailto:)([^)\s]+)\)")
_TITLE = re.compile(r"\A# .*\n+")
_URLS = {
    "Homepage": "",
    "Documentation": "/tree/main/docs",
    "Changelog": "/blob/main/CHANGELOG.md",
    "Source": "",
    "Issues": "/issues",
    "User Support": "/issues",
}


def absolute(text: str, address: str) -> str:
    """Return a README without its title (the index shows the name itself) and with whole addresses."""
    text = _TITLE.sub("", text)
    text = _PICTURE.sub(rf"\g<1>{address}/raw/main/\g<2>)", text)
    return _LINK.sub(rf"\g<1>{address}/blob/main/\g<2>)", text)


def urls(address: str) -> dict[str, str]:
    """Return what an index lists beside the text."""
    return {name: address + path for name, path in _URLS.items()}


class ProjectPage(MetadataHookInterface):
    """Fills ``readme`` and ``urls`` of the project's metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling with the ``project`` table."""
        address = str(self.config["address"]).rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, address)}
        metadata["urls"] = urls(address)
