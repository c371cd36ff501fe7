"""Section `training` of a recipe, and its keys with another value in one stage."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from domainbridge.config.base import Positive, PositiveInt, Section

__all__ = ["StageOverride", "TrainingConfig"]


class TrainingConfig(Section):
    """Optimization of a stage's network."""

    steps: PositiveInt = Field(40_000, description="optimizer steps of each training stage")
    batch_size: Positive = Field(
        4, le=65_536, description="pairs of a source and a target crop per step, over all devices"
    )
    gradient_accumulation_steps: PositiveInt = Field(
        1,
        description="parts of a device's rows that pass the network one after the other: less memory; BatchNorm and "
        "the share of confident pixels are then over the rows of a part",
    )
    learning_rate: float = Field(6e-5, gt=0, le=1e30, description="AdamW's learning rate of the backbone")
    head_lr_mult: float = Field(
        10.0, gt=0, le=1e6, description="learning rate of the head / learning rate of the backbone"
    )
    weight_decay: float = Field(0.01, ge=0, le=1e3, description="AdamW's weight decay, on all weights as published")
    warmup_steps: int = Field(1500, ge=0, le=10**9, description="steps of linear warm-up; linear decay to 0 follows")
    warmup_ratio: float = Field(1e-6, ge=0, le=1, description="factor of the learning rate at the first step")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="autocast of forward passes; float16 scales the losses and skips steps that overflow"
    )
    activation_checkpointing: bool = Field(
        False,
        description="the backward pass computes the student's blocks again: much less memory, one more forward pass, "
        "the same result",
    )
    channels_last: bool = Field(True, description="memory layout; faster on CPUs and on tensor cores")
    adapt_batchnorm: Literal["running", "target"] = Field(
        "running",
        description="BatchNorm statistics of a stage's finished model: 'running' as training left them (published), or "
        "'target': averages over target crops (AdaBN), useful where teacher_statistics 'batch' is; not for source-only",
    )
    source_augmentation: Literal["none", "strong"] = Field(
        "none",
        description="none (published), or strong: gamma, haze, blur and noise on source crops, each with probability "
        "1/2, so that a model of one camera and weather suits others better",
    )
    checkpoint_every: PositiveInt = Field(1000, description="steps between checkpoints")
    log_every: PositiveInt = Field(50, description="steps between lines of metrics.jsonl")


def _optional(field: FieldInfo) -> tuple[Any, Any]:
    """The same type and bounds, or None."""
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return annotation | None, Field(None, description=field.description)


if TYPE_CHECKING:

    class StageOverride(Section):
        """Every key of :class:`TrainingConfig`, None where the stage keeps its value."""

else:
    StageOverride = create_model(
        "StageOverride",
        __base__=Section,
        __doc__="Keys of `training` with another value in one stage.",
        **{name: _optional(field) for name, field in TrainingConfig.model_fields.items()},
    )
