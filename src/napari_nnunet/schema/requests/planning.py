"""Requests about planning."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt
from pydantic import BaseModel, ConfigDict, Field


class PlanSettings(BaseModel):
    """How a dataset is planned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    planner: str = Field("ExperimentPlanner", title="Planner", description="One of the planners of nnU-Net v2.")
    gpu_memory_gb: Annotated[float, Gt(0)] | None = Field(
        None, title="GPU memory (GB)", description="What a training may take; the planner's own where not given."
    )
    target_spacing: tuple[float, float, float] | None = Field(
        None, title="Target spacing (mm)", description="In the reader's axis order (z, y, x); decided by the data else."
    )
    plans_name: str | None = Field(None, title="Plans name", description="The planner's own where not given.")
    preprocessor: Literal["DefaultPreprocessor"] = "DefaultPreprocessor"
