"""OpenVINO, imported without what it does beside computing.

It tells a server that it was imported, from a process that it starts for that. Nothing that is done here is anybody
else's business, and where processes are spawned, that one runs the user's script again. OpenVINO does without the
package that would tell; whoever else wants that package finds it afterwards.
"""

from __future__ import annotations

import sys

_TELLS = "openvino_telemetry"
_known = sys.modules.get(_TELLS)
sys.modules[_TELLS] = None  # type: ignore[assignment]
try:
    import openvino as ov
    from openvino import opset13 as ops
finally:
    if _known is None:
        del sys.modules[_TELLS]
    else:
        sys.modules[_TELLS] = _known

__all__ = ["ops", "ov"]
