"""What training reads: the files themselves, or reduced copies of them where the recipe asks for some."""

from collections.abc import Callable

from domainbridge.build.datasets import DataSets, data_root
from domainbridge.build.paths import below
from domainbridge.config.domains import SourceConfig, TargetConfig
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import ConcatDataset, Dataset, FileDataset
from domainbridge.data.storage.cache import CacheRule, build_cache, bytes_needed
from domainbridge.errors import RecipeError
from domainbridge.runtime.signals import StopRequested

__all__ = ["cache_rule", "cache_size", "training_datasets"]

_ANNOUNCE_EVERY = 1000


def cache_rule(recipe: Recipe) -> CacheRule:
    """The recipe's cache.

    Raises:
        RecipeError: it names no folder, or one among a domain's images.
    """
    section = recipe.cache
    if section.folder is None:
        raise RecipeError(
            "cache.folder: is not set; name a folder for the reduced copies, relative to data_root, in the recipe or "
            "as cache.folder=DIR, here and for `run`"
        )
    folder = below(data_root(recipe), section.folder, "cache.folder")
    domains: tuple[SourceConfig | TargetConfig, ...] = (*recipe.sources, *recipe.targets)
    for domain in domains:
        root = below(data_root(recipe), domain.root, f"{domain.name}.root")
        images = below(root, domain.images or "", f"{domain.name}.images")
        if domain.images is not None and folder.resolve().is_relative_to(images.resolve()):
            raise RecipeError(
                f"cache.folder: {folder} lies below {images}, the images of {domain.name}, where copies would be "
                "taken for images; choose another folder"
            )
    return CacheRule(folder, section.format, section.quality)


def cache_size(recipe: Recipe, data: DataSets) -> int:
    """About how many bytes the copies of all training domains take."""
    rule = cache_rule(recipe)
    return sum(bytes_needed(domain, rule) for domain in data.trained)


def training_datasets(
    recipe: Recipe,
    data: DataSets,
    announce: Callable[[str], None],
    stop_requested: Callable[[], bool] = lambda: False,
    *,
    copies: bool = True,
) -> tuple[Dataset, Dataset, Dataset | None] | None:
    """All sources one after the other, all targets, all targets with labels for stage oracle; copies are made first.

    Args:
        recipe: complete.
        data: its files.
        announce: gets a line of progress.
        stop_requested: asked after each copy.
        copies: whether copies are read at all, where the recipe names a folder for them.

    Returns:
        None after a requested stop; the next call goes on.

    Raises:
        DataError: a file cannot be read, or the disk is too small for the copies.
    """
    if recipe.cache.folder is None or not copies:
        return data.source, data.target, None
    rule = cache_rule(recipe)

    def copied(domain: FileDataset) -> Dataset:
        def progress(ready: int) -> None:
            if stop_requested():
                raise StopRequested
            if ready % _ANNOUNCE_EVERY == 0 or ready == len(domain):
                announce(f"{domain.name}: {ready} of {len(domain)} copies")

        return build_cache(domain, rule, progress)

    announce(f"reading reduced copies in {rule.folder}; missing ones are made first")
    try:
        domains = [copied(domain) for domain in data.trained]
    except StopRequested:
        return None
    ends = len(data.sources), len(data.sources) + len(data.targets)
    parts = (domains[: ends[0]], domains[ends[0] : ends[1]], domains[ends[1] :])
    source, target, oracle = (ConcatDataset(tuple(part)) for part in parts)
    return source, target, oracle if data.oracle else None
