"""Section `training` of a recipe, and its keys with another value in one stage."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from domainbridge.config.base import Positive, PositiveInt, Section

__all__ = ["LATER_KEYS", "EarlyStoppingConfig", "StageOverride", "TrainingConfig"]

_Factor = Annotated[float, Field(ge=0, le=1e6)]

LATER_KEYS = {
    "source_augmentation",
    "layer_decay",
    "lr_mults",
    "decay_mults",
    "clip_grad_norm",
    "trunk",
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "drop_path",
    "class_weights",
    "label_smoothing",
    "early_stopping",
}
"""Keys younger than the first recipes. Their defaults give the results of recipes without them, so they are no part of
a stage's hash."""


class EarlyStoppingConfig(Section):
    """Ends a stage whose score without labels rises no more; the stage keeps the weights of its best look."""

    score: Literal["jitter_kappa", "flip_kappa"] = Field(
        "jitter_kappa",
        description="agreement of the predictions for training images of the targets and for the same images jittered "
        "or mirrored, beyond chance; see docs/label-free.md",
    )
    every: PositiveInt = Field(1000, description="steps between two looks at the score; the last step has one too")
    patience: Positive = Field(3, le=100_000, description="looks without a better score after which the stage ends")
    images: Positive = Field(32, le=100_000, description="images per target and look, evenly spread")


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
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="layer-wise learning rate decay: rate of a block of the backbone / that of the next block; "
        "learning_rate is that of the last block; 1 (published): one rate, 0.9 for foundation ViTs",
    )
    lr_mults: dict[str, _Factor] = Field(
        {},
        description="part of a weight's name -> factor of its learning rate, e.g. {patch_embed: 0.1}; the longest part "
        "that fits counts",
    )
    weight_decay: float = Field(0.01, ge=0, le=1e3, description="AdamW's weight decay, on all weights as published")
    decay_mults: dict[str, _Factor] = Field(
        {}, description="part of a weight's name -> factor of its weight decay, e.g. {norm: 0, bias: 0, pos_embed: 0}"
    )
    clip_grad_norm: Annotated[float, Field(gt=0, le=1e30)] | None = Field(
        None,
        description="largest L2 norm of the gradients of all weights together; longer ones are shortened; default: no "
        "clipping",
    )
    trunk: Literal["whole", "frozen", "lora"] = Field(
        "whole",
        description="what trains of the backbone: whole (published), frozen (nothing; BatchNorm keeps its statistics) "
        "or lora (low-rank differences of its matrices, merged into the finished model); the head always trains",
    )
    lora_rank: Positive = Field(16, le=4096, description="rank of the differences; trunk: lora")
    lora_alpha: float = Field(
        16.0, gt=0, le=1e6, description="factor of the differences is lora_alpha / lora_rank; trunk: lora"
    )
    lora_targets: tuple[str, ...] = Field(
        (),
        description="last parts of the names of linear layers and 1x1 convolutions that get a difference, e.g. [qkv, "
        "proj]; default: all of the backbone; trunk: lora",
    )
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="stochastic depth: probability that a sample skips the last residual block, growing from 0 in the "
        "first; default: as timm builds the backbone, for most 0",
    )
    warmup_steps: int = Field(1500, ge=0, le=10**9, description="steps of linear warm-up; linear decay to 0 follows")
    warmup_ratio: float = Field(1e-6, ge=0, le=1, description="factor of the learning rate at the first step")
    class_weights: dict[str, _Factor] = Field(
        {},
        description="class -> factor of the cross entropy of its pixels, by label or pseudo-label; default: 1 each; "
        "the mean is still over all pixels",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of a label or pseudo-label that goes to all classes alike"
    )
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
    early_stopping: EarlyStoppingConfig | None = Field(
        None, description="of stages that see target images; default: every stage takes all its steps"
    )
    checkpoint_every: PositiveInt = Field(1000, description="steps between checkpoints")
    log_every: PositiveInt = Field(50, description="steps between lines of metrics.jsonl")


def _optional(field: FieldInfo) -> tuple[Any, Any]:
    """The same type and bounds, or None."""
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return annotation | None, Field(None, description=field.description)


_EXTEND = (
    "steps of a further stage, NAME-extended, which goes on from the finished stage; the finished stage stays, and "
    "later stages read the extension, see docs/fine-tuning.md"
)

if TYPE_CHECKING:

    class StageOverride(Section):
        """Every key of :class:`TrainingConfig`, None where the stage keeps its value, and ``extend``."""

        extend: int | None = None

else:
    StageOverride = create_model(
        "StageOverride",
        __base__=Section,
        __doc__="Keys of `training` with another value in one stage.",
        **{name: _optional(field) for name, field in TrainingConfig.model_fields.items()},
        extend=(PositiveInt | None, Field(None, description=_EXTEND)),
    )
