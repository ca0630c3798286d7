"""What a person chooses. Every default exists once, here; forms, command line and docs read it."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, Field

from napari_nnunet.schema.names import Fold

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
BackendName = Literal["auto", "torch", "openvino"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
CheckpointName = str
Average = Literal["logits", "probabilities"]
PresetName = Literal["fast", "balanced", "full"]


class PredictSettings(BaseModel):
    """How a trained model is applied to an image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: tuple[Fold, ...] | None = Field(
        None, title="Folds", description="Trained folds whose logits are averaged; none given means all that are found."
    )
    checkpoint: CheckpointName = Field(
        "checkpoint_final.pth", title="Checkpoint", description="checkpoint_final.pth, checkpoint_best.pth, ..."
    )
    step: Annotated[float, Gt(0), Le(1)] = Field(
        0.5, title="Tile step", description="Distance between tiles as a fraction of the tile; 0.5 is nnU-Net's."
    )
    mirroring: bool = Field(
        True,
        title="Mirroring",
        description="Average over mirrored copies of every tile: slower (8 times in 3D, 4 in 2D), a little better.",
    )
    gaussian: bool = Field(
        True, title="Gaussian weights", description="Weigh the centre of a tile more than its border, as nnU-Net does."
    )
    device: str = Field(
        "auto", title="Device", description="auto, cpu, cuda, cuda:1, mps. 'auto' takes the fastest that is safe."
    )
    backend: BackendName = Field(
        "auto", title="Backend", description="auto, torch or openvino (CPU only). 'auto' takes the fastest."
    )
    precision: Precision = Field(
        "auto", title="Precision", description="auto, float32, bfloat16 or float16 for the network's arithmetic."
    )
    threads: Annotated[int, Ge(0)] = Field(0, title="CPU threads", description="0 means all cores.")
    memory_gb: Annotated[float, Ge(0)] = Field(
        0, title="Main memory (GB)", description="What a prediction may take at most; 0 means what is free."
    )
    on_device: bool = Field(
        True,
        title="Keep sums on the GPU",
        description="Off: tiles are summed up in main memory, which saves GPU memory.",
    )
    probabilities: bool = Field(
        False, title="Probabilities", description="Also return the probability of every class for every voxel."
    )

    def replace(self, **changes: object) -> PredictSettings:
        """Return a copy with some fields changed and everything checked again."""
        return PredictSettings.model_validate({**self.model_dump(), **changes})


#: What the presets set (everything else stays as it is). ``full`` is nnU-Net's own setting.
PRESETS: dict[PresetName, dict[str, object]] = {
    "fast": {"folds": "first", "mirroring": False, "step": 0.75},
    "balanced": {"folds": None, "mirroring": False, "step": 0.5},
    "full": {"folds": None, "mirroring": True, "step": 0.5},
}


def preset(name: PresetName, *, folds: tuple[Fold, ...], base: PredictSettings) -> PredictSettings:
    """Return ``base`` with a preset applied.

    Parameters
    ----------
    name : {"fast", "balanced", "full"}
        Fast: one fold, no mirroring, step 0.75. Balanced: all folds, no mirroring, step 0.5. Full: nnU-Net's own.
    folds : tuple
        The folds the model has.
    base : PredictSettings
        Everything the preset leaves alone.
    """
    changes = dict(PRESETS[name])
    changes["folds"] = folds[:1] if changes["folds"] == "first" else folds
    return base.replace(**changes)
