"""From a recipe's domains to samples: the last place where data configuration is seen."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from domainbridge.config.domains import Resize, Source, Target, Validation
from domainbridge.config.schema import Recipe
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.data.layout_listing import list_layout, split_of
from domainbridge.data.listing import FolderRule, Listing, list_folder
from domainbridge.data.listing_memory import remembered_listing
from domainbridge.data.mixture import Mixture
from domainbridge.data.samples import Concatenated, FileSamples
from domainbridge.data.statistics import RareClasses, counts_of_samples
from domainbridge.data.streams import CropRule
from domainbridge.data.transforms import ResizeRule
from domainbridge.errors import DataError, InputError, RecipeError, problem_list
from domainbridge.files import write_file
from domainbridge.pipeline.labels import source_decoder, training_space, validation_decoder

__all__ = [
    "DataSets",
    "completed_validation",
    "crop_rule",
    "data_root",
    "list_data",
    "mixture",
    "open_data",
    "rare_classes",
    "resize_rule",
    "resolved_root",
]

_PACKAGED = "package:"
_ANY_NAME = "{stem}"


@dataclass(frozen=True)
class DataSets:
    """Everything that a recipe reads.

    Attributes:
        sources: labelled, in the recipe's space.
        targets: unlabelled.
        validation: by target name; labelled, in the scoring space, labels at their stored size.
    """

    sources: tuple[FileSamples, ...]
    targets: tuple[FileSamples, ...]
    validation: dict[str, FileSamples]

    @property
    def domains(self) -> tuple[FileSamples, ...]:
        """Every set of files once."""
        return (*self.sources, *self.targets, *self.validation.values())

    @property
    def source(self) -> Concatenated:
        """All sources, one after the other."""
        return Concatenated(self.sources)

    @property
    def target(self) -> Concatenated:
        """All targets, one after the other."""
        return Concatenated(self.targets)


def mixture(recipe: Recipe, domains: tuple[FileSamples, ...]) -> Mixture:
    """How often each of the sources or targets is drawn."""
    return Mixture(tuple(len(domain) for domain in domains), recipe.sampling.balance)


def data_root(recipe: Recipe) -> Path:
    """The recipe's data_root, else the environment's, else 'data'; ``package:NAME`` is data shipped with us."""
    root = recipe.data_root or os.environ.get("DOMAINBRIDGE_DATA") or "data"
    if root.startswith(_PACKAGED):
        return Path(__file__).parents[1] / root.removeprefix(_PACKAGED)
    return Path(root).expanduser()


def resolved_root(recipe: Recipe) -> str:
    """The data root as a run folder's recipe keeps it: absolute, or data shipped with the package."""
    given = recipe.data_root or ""
    return given if given.startswith(_PACKAGED) else str(data_root(recipe).absolute())


def crop_rule(recipe: Recipe, mean: tuple[float, ...]) -> CropRule:
    """The recipe's crop; padding gets the colour ``mean`` (RGB in [0, 1]) that normalises to about 0."""
    crop = recipe.crop
    red, green, blue = (round(255 * value) for value in mean)
    return CropRule((crop.height, crop.width), crop.max_class_share, crop.tries, crop.flip, (red, green, blue))


def resize_rule(resize: Resize | None) -> ResizeRule | None:
    """The recipe's resize, if any."""
    return None if resize is None else ResizeRule(resize.width, resize.height, resize.keep_ratio, resize.min_side)


def open_data(recipe: Recipe) -> DataSets:
    """List the files of every domain; nothing is decoded.

    Raises:
        InputError: something is missing or unknown; the problems of all domains are listed.
    """
    data, problems = list_data(recipe)
    if problems:
        title = f"recipe {recipe.name}: {len(problems)} problem(s) with data below {data_root(recipe).absolute()}"
        raise DataError(problem_list(title, problems) + "\nSet data_root=DIR or DOMAINBRIDGE_DATA if it is elsewhere.")
    return data


def list_data(recipe: Recipe) -> tuple[DataSets, list[str]]:
    """The files of every domain that can be used, and what is wrong with the rest; nothing is decoded."""
    root = data_root(recipe)
    problems: list[str] = []

    def opened(where: str, domain: Source | Target | Validation, dataset: str) -> FileSamples:
        try:
            samples, found = _open(domain, dataset, root, recipe, where)
        except InputError as error:
            problems.append(str(error))
            return FileSamples(where, ())
        problems.extend(f"{where}: {problem}" for problem in found)
        return samples

    sources = tuple(opened(f"sources.{source.name}", source, source.dataset) for source in recipe.sources)
    targets = tuple(opened(f"targets.{target.name}", target, target.dataset) for target in recipe.targets)
    validation = {
        target.name: opened(f"targets.{target.name}.validation", completed_validation(target), target.dataset)
        for target in recipe.targets
        if target.validation is not None
    }
    return DataSets(sources, targets, validation), problems


def rare_classes(recipe: Recipe, data: DataSets, memory: Path) -> RareClasses | None:
    """The recipe's rare class sampling, if any; the pixel counts of the same files are remembered in ``memory``.

    Raises:
        RecipeError: no source image shows enough of any class.
    """
    rule = recipe.sampling
    if not rule.rare_classes:
        return None
    space = training_space(recipe)
    sources = recipe.model_dump_json(include={"sources", "label_space"})
    fingerprint = "".join([sources, *(files_fingerprint(source) for source in data.sources)])
    counts = _remembered_counts(memory, fingerprint)
    if counts is None:
        counts = counts_of_samples(data.source, len(space))[:, :-1]
        write_file(memory, partial(_save_counts, counts, fingerprint))
    rare = RareClasses(counts, rule.temperature, rule.min_share)
    if not rare.shown:
        raise RecipeError(
            f"sampling.min_share: no source image shows a class on {rule.min_share:.2%} of its labelled pixels; lower "
            "it"
        )
    return rare


def _save_counts(counts: NDArray[np.int64], fingerprint: str, path: Path) -> None:
    with path.open("wb") as file:  # given a name, NumPy would add a suffix to it
        np.savez_compressed(file, counts=counts, fingerprint=np.array(fingerprint))


def _remembered_counts(memory: Path, fingerprint: str) -> NDArray[np.int64] | None:
    if not memory.exists():
        return None
    with np.load(memory) as content:
        counts: NDArray[np.int64] = content["counts"]
        return counts if str(content["fingerprint"]) == fingerprint else None


def completed_validation(target: Target) -> Validation:
    """A target's validation section with the target's values where it has none of its own."""
    assert target.validation is not None
    own = target.validation
    inherited = {
        "root": own.root or target.root,
        "images": own.images or target.images,
        "image_pattern": own.image_pattern if own.image_pattern != _ANY_NAME else target.image_pattern,
        "resize": own.resize or target.resize,
    }
    return own.model_copy(update=inherited)


def _open(
    domain: Source | Target | Validation, dataset: str, root: Path, recipe: Recipe, where: str
) -> tuple[FileSamples, tuple[str, ...]]:
    """The files of a domain that can be used, and what is wrong with others."""
    folder = root / (domain.root or "")
    memory = user_cache_path("domainbridge") / "listings" if recipe.runtime.remember_listings else None
    list_files = _folder if dataset == "folder" else partial(_layout, dataset=dataset)
    listing = list_files(domain, folder=folder, where=where, memory=memory)
    decoder = None
    if isinstance(domain, Source):
        decoder = source_decoder(recipe, domain, dataset, folder, where)
    elif isinstance(domain, Validation):
        decoder = validation_decoder(recipe, domain, dataset, folder, where)
    samples = FileSamples(
        where,
        listing.images,
        listing.labels,
        decoder,
        resize_rule(domain.resize),
        resize_labels=not isinstance(domain, Validation),
        label_scale=domain.label_scale if isinstance(domain, Validation) else 1.0,
        notes=listing.notes,
    )
    return samples, listing.problems


def _layout(
    domain: Source | Target | Validation, *, dataset: str, folder: Path, where: str, memory: Path | None
) -> Listing:
    labels_too = () if isinstance(domain, Target) else ("labels", "label_pattern")
    useless = [key for key in ("images", "image_pattern", *labels_too) if getattr(domain, key) not in (None, _ANY_NAME)]
    if useless:
        raise RecipeError(f"{where}: dataset {dataset} knows its folders; leave out {' and '.join(useless)}")
    split = split_of(dataset, domain.split, where, default="val" if isinstance(domain, Validation) else "train")
    labelled = not isinstance(domain, Target)
    question = (dataset, folder, folder.absolute(), split, domain.exclude, labelled)
    make = partial(list_layout, dataset, folder, split, domain.exclude, labelled=labelled)
    return remembered_listing(memory, question, make)


def _folder(domain: Source | Target | Validation, *, folder: Path, where: str, memory: Path | None) -> Listing:
    labelled = None if isinstance(domain, Target) else domain
    absent = [] if domain.images is not None else ["images"]
    if labelled is not None and labelled.labels is None:
        absent.append("labels")
    if absent or domain.images is None:
        raise RecipeError(f"{where}: a folder data set needs {' and '.join(absent)} (folders relative to root)")
    labels = folder / labelled.labels if labelled is not None and labelled.labels is not None else None
    rule = FolderRule(
        split=folder / domain.split if domain.split else None,
        image_pattern=domain.image_pattern,
        label_pattern=labelled.label_pattern if labelled is not None else _ANY_NAME,
        exclude=domain.exclude,
    )
    images = folder / domain.images
    question = ("folder", images, labels, rule, images.absolute())
    return remembered_listing(memory, question, partial(list_folder, images, labels, rule))
