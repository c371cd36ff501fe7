"""Plain self-training on mixed images, one path and one round: DACS (Tranheden et al., WACV 2021, arXiv 2007.08702)."""

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from domainbridge.config.base import Section
from domainbridge.methods.base import MethodConfig, StageSpec, register_method
from domainbridge.methods.self_training import Mixing, SelfTrainingConfig, self_training_stage
from domainbridge.methods.source_only import baseline_stages
from domainbridge.ops.photometric import AugmentationConfig

__all__ = ["DACS", "DACSConfig"]


class DACSConfig(MethodConfig):
    """Keys of `method: self-training`."""

    mixing: Mixing = Field("class", description="class: ClassMix, as in DACS; cut: CutMix")
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()


@register_method("self-training")
class DACS:
    """One student, one EMA teacher, one kind of mixing."""

    config_class: ClassVar[type[Section]] = DACSConfig
    stage_names = ("source-only", "self-training")

    def __init__(self, config: DACSConfig, *, published: bool) -> None:
        self.config, self.published = config, published

    def stages(self) -> list[StageSpec]:
        """The baselines that the recipe asks for, then the path."""
        config = self.config
        path = self_training_stage(
            "self-training",
            config.mixing,
            config.self_training,
            config.augmentation,
            init="source-only" if config.warm_start else None,
            published=self.published,
        )
        path = replace(path, settings={**path.settings, "mixing": config.mixing})
        return [*baseline_stages(config), path]
