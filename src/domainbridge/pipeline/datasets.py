"""From a recipe's domains to samples: the last place where data configuration is seen."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.config.domains import Resize, Source, Target, Validation
from domainbridge.config.schema import Recipe
from domainbridge.data.layouts import layout_files
from domainbridge.data.samples import Concatenated, FileSamples, pair_folder
from domainbridge.data.statistics import RareClasses, counts_of_samples
from domainbridge.data.streams import CropRule
from domainbridge.data.transforms import ResizeRule
from domainbridge.errors import DataError, InputError, RecipeError, problem_list
from domainbridge.files import replace_file
from domainbridge.pipeline.labels import source_decoder, training_space, validation_decoder

__all__ = [
    "DataSets",
    "crop_rule",
    "data_root",
    "files_fingerprint",
    "open_data",
    "rare_classes",
    "resize_rule",
    "resolved_root",
]

_PACKAGED = "package:"


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
    root = data_root(recipe)
    problems: list[str] = []
    opened: dict[str, FileSamples] = {}

    def attempt(where: str, domain: Source | Target | Validation, of: Target | None = None) -> None:
        try:
            opened[where] = _open(domain, of, root, recipe, where)
        except InputError as error:
            problems.append(str(error))

    for source in recipe.sources:
        attempt(f"sources.{source.name}", source)
    for target in recipe.targets:
        attempt(f"targets.{target.name}", target)
        if target.validation is not None:
            attempt(f"targets.{target.name}.validation", target.validation, target)
    if problems:
        title = f"recipe {recipe.name}: {len(problems)} problem(s) with data below {root.absolute()}"
        raise DataError(problem_list(title, problems) + "\nSet data_root=DIR or DOMAINBRIDGE_DATA if it is elsewhere.")
    validated = {target.name for target in recipe.targets if target.validation is not None}
    return DataSets(
        tuple(opened[f"sources.{source.name}"] for source in recipe.sources),
        tuple(opened[f"targets.{target.name}"] for target in recipe.targets),
        {name: opened[f"targets.{name}.validation"] for name in validated},
    )


def files_fingerprint(samples: FileSamples) -> str:
    """Changes when a file is added, removed, renamed or has another size; moving the whole folder does not count."""
    digest = hashlib.blake2b(digest_size=12)
    paths = [path.absolute() for path in (*samples.images, *(samples.labels or ()))]
    base = os.path.commonpath([path.parent for path in paths])
    for path in paths:
        try:
            digest.update(f"{os.path.relpath(path, base)}\0{path.stat().st_size}\n".encode())
        except OSError as error:
            raise DataError(f"{samples.name}: {path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def rare_classes(recipe: Recipe, data: DataSets, memory: Path) -> RareClasses | None:
    """The recipe's rare class sampling, if any; the pixel counts of the same files are remembered in ``memory``."""
    rule = recipe.sampling
    if not rule.rare_classes:
        return None
    space = training_space(recipe)
    sources = recipe.model_dump_json(include={"sources", "label_space"})
    fingerprint = "".join([sources, *(files_fingerprint(source) for source in data.sources)])
    counts = _remembered_counts(memory, fingerprint)
    if counts is None:
        counts = counts_of_samples(data.source)[:, : len(space)]
        temporary = memory.with_name("class-counts.tmp.npz")
        np.savez_compressed(temporary, counts=counts, fingerprint=np.array(fingerprint))
        replace_file(temporary, memory)
    return RareClasses(counts, rule.temperature, rule.min_share)


def _remembered_counts(memory: Path, fingerprint: str) -> NDArray[np.int64] | None:
    if not memory.exists():
        return None
    with np.load(memory) as content:
        counts: NDArray[np.int64] = content["counts"]
        return counts if str(content["fingerprint"]) == fingerprint else None


def _open(
    domain: Source | Target | Validation, of: Target | None, root: Path, recipe: Recipe, where: str
) -> FileSamples:
    """The files of a domain; ``of`` is the target that a validation set belongs to."""
    dataset = domain.dataset if not isinstance(domain, Validation) else of.dataset if of else "folder"
    folder = root / (domain.root or (of.root if of is not None else ""))
    labels_of = None if isinstance(domain, Target) else domain
    resize = resize_rule(domain.resize or (of.resize if of is not None else None))
    decoder = None
    if labels_of is not None:
        decoder = (source_decoder if of is None else validation_decoder)(recipe, labels_of, dataset, where)
    if dataset != "folder":
        unused = [key for key in ("images", "labels") if getattr(domain, key, None) is not None]
        if unused:
            raise RecipeError(f"{where}: dataset {dataset} knows its folders; leave out {' and '.join(unused)}")
        images, labels = layout_files(dataset, folder, domain.split, of is not None, labels_of is not None, where)
    else:
        images, labels = _pair(domain, of, folder, where)
    return FileSamples(where, images, labels, decoder, resize, resize_labels=of is None)


def _pair(
    domain: Source | Target | Validation, of: Target | None, folder: Path, where: str
) -> tuple[tuple[Path, ...], tuple[Path, ...] | None]:
    images = domain.images or (of.images if of is not None else None)
    labelled = not isinstance(domain, Target)
    labels = None if isinstance(domain, Target) else domain.labels
    if images is None or (labelled and labels is None):
        absent = [key for key, value in (("images", images), ("labels", labels or not labelled)) if not value]
        raise RecipeError(f"{where}: a folder data set needs {' and '.join(absent)} (folders relative to root)")
    split = folder / domain.split if domain.split else None
    return pair_folder(folder / images, folder / labels if labels else None, split, where)
