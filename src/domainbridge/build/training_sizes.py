"""Which sizes the images of a stage's training have, from their headers."""

from collections.abc import Sequence

from domainbridge.build.datasets import DataSets
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import FileDataset, evenly_spread
from domainbridge.data.decode import image_size
from domainbridge.data.threads import in_threads
from domainbridge.data.training_sizes import ImageSizes, TrainingSizes
from domainbridge.errors import DataError
from domainbridge.methods.base import StageSpec, TrainingStage

__all__ = ["training_sizes"]

_MOST = 200
"""Headers that are read per data set."""


def training_sizes(recipe: Recipe, stage: StageSpec, data: DataSets) -> TrainingSizes:
    """The sizes of what a stage's model learned from; files that cannot be read are left out."""
    crop = recipe.crop
    source, target, target_scale = data.sources, data.targets, crop.target_scale
    if isinstance(stage, TrainingStage):
        if stage.supervision != "source":
            source = ()
        if stage.supervision == "target":
            target, target_scale = tuple(data.oracle.values()), crop.scale
        elif not stage.uses_target:
            target = ()
    return TrainingSizes((crop.height, crop.width), _sizes_of(source, crop.scale), _sizes_of(target, target_scale))


def _sizes_of(domains: Sequence[FileDataset], scale: tuple[float, float]) -> ImageSizes | None:
    chosen = [(domain, index) for domain in domains for index in evenly_spread(len(domain), _MOST)]

    def look(number: int) -> tuple[int, int] | None:
        domain, index = chosen[number]
        try:
            size = image_size(domain.images[index], domain.image_rule)
        except DataError:
            return None
        return size if domain.resize is None else domain.resize.size_for(*size)

    known = [size for size in in_threads(look, range(len(chosen))) if size is not None]
    if not known:
        return None
    sizes = sorted(known, key=lambda size: (size[0] * size[1], size))
    return ImageSizes(len(sizes), sizes[0], sizes[len(sizes) // 2], sizes[-1], scale)
