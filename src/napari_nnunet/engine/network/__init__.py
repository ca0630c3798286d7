"""The U-Nets and what runs them: torch, OpenVINO, devices."""

from __future__ import annotations

import sys

# OpenVINO tells a server that it was imported, from a process that it starts for that. Nothing that is done here is
# anybody else's business, and where processes are spawned, that one runs the user's script again. It does without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
