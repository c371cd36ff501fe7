"""From a recipe's domains to samples: the last place where data configuration is seen."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.config.schema import (
    LabelSource,
    LabelSpaceDefinition,
    Recipe,
    Resize,
    Source,
    Target,
    Validation,
)
from domainbridge.data.decode import IdLabels, LabelDecoder, label_map_decoder
from domainbridge.data.layouts import known_layout, layout_files
from domainbridge.data.samples import Concatenated, FileSamples, pair_folder
from domainbridge.data.spaces import BUILT_IN, LabelSpace, label_space, space_table, table_by_names
from domainbridge.data.statistics import RareClasses, counts_of_samples
from domainbridge.data.streams import CropRule
from domainbridge.data.transforms import ResizeRule
from domainbridge.errors import DataError, InputError, RecipeError, problem_list
from domainbridge.evaluation.inference import InferenceRule
from domainbridge.evaluation.scoring import ScoringRule
from domainbridge.files import replace_file

__all__ = [
    "DataSets",
    "crop_rule",
    "data_root",
    "files_fingerprint",
    "label_decoder",
    "open_data",
    "rare_classes",
    "resize_rule",
    "scoring_rule",
    "training_space",
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


def training_space(recipe: Recipe) -> LabelSpace:
    """The space that the network predicts.

    Raises:
        RecipeError: unknown.
    """
    return _space(recipe.label_space)


def scoring_rule(recipe: Recipe) -> ScoringRule:
    """How the recipe scores.

    Raises:
        RecipeError: a space, map or class is unknown.
    """
    rule = recipe.evaluation
    trained = training_space(recipe)
    space = trained if rule.label_space is None else _space(rule.label_space)
    table = table_by_names(rule.map, trained, space) if rule.map is not None else space_table(trained, space)
    for name in rule.exclude:
        space.index(name)
    window = (rule.window or (recipe.crop.height, recipe.crop.width)) if rule.mode == "slide" else None
    return ScoringRule(space, table, rule.exclude, InferenceRule(window, rule.flip))


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
    paths = [*samples.images, *(samples.labels or ())]
    base = os.path.commonpath([path.parent for path in paths])
    for path in paths:
        digest.update(f"{os.path.relpath(path, base)}\0{path.stat().st_size}\n".encode())
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


def label_decoder(rule: LabelSource, space: LabelSpace, where: str, via: LabelSpace | None = None) -> LabelDecoder:
    """How label files become train ids of ``space``.

    Args:
        rule: label_space or label_map of the files; neither: the files are in ``space`` already.
        space: wanted.
        where: for messages.
        via: a space in between, when no direct map is known.

    Raises:
        RecipeError: no way from the files to the space.
    """
    if rule.label_map is not None and rule.label_space is not None:
        raise RecipeError(f"{where}: give label_map or label_space, not both")
    if rule.label_map is not None:
        return label_map_decoder(rule.label_map, space, where)
    own = label_space(rule.label_space) if rule.label_space is not None else space
    try:
        table = space_table(own, space)
    except RecipeError:
        if via is None:
            raise
        table = space_table(via, space)[space_table(own, via)]
    allowed = [*range(len(own)), 255]
    return IdLabels(table, _flags(allowed), own.name)


def _flags(values: list[int]) -> NDArray[np.bool_]:
    flags = np.zeros(256, bool)
    flags[values] = True
    return flags


def _space(definition: str | LabelSpaceDefinition) -> LabelSpace:
    if isinstance(definition, str):
        return label_space(definition)
    return label_space(definition.name, definition.classes, definition.colors)


def _open(
    domain: Source | Target | Validation, of: Target | None, root: Path, recipe: Recipe, where: str
) -> FileSamples:
    dataset = of.dataset if of is not None else domain.dataset  # type: ignore[union-attr]
    folder = root / (domain.root or (of.root if of is not None else ""))
    labels_of = None if isinstance(domain, Target) else domain
    resize = resize_rule(domain.resize or (of.resize if of is not None else None))
    decoder = None
    if labels_of is not None:
        wanted = scoring_rule(recipe).space if of is not None else training_space(recipe)
        decoder = _decoder_for(labels_of, dataset, wanted, recipe, where)
    if dataset != "folder":
        split = domain.split or ("val" if of is not None else "train")
        images, labels = layout_files(dataset, folder, split, labels_of is not None, where)
        return FileSamples(where, images, labels, decoder, resize, resize_labels=of is None)
    image_folder = domain.images or (of.images if of is not None else None)
    label_folder = labels_of.labels if labels_of is not None else None
    absent = [
        key for key, value in (("images", image_folder), ("labels", label_folder or labels_of is None)) if not value
    ]
    if absent or image_folder is None:
        raise RecipeError(f"{where}: a folder data set needs {' and '.join(absent)} (folders relative to root)")
    images, labels = pair_folder(
        folder / image_folder,
        folder / label_folder if label_folder else None,
        folder / domain.split if domain.split else None,
        where,
    )
    return FileSamples(where, images, labels, decoder, resize, resize_labels=of is None)


def _decoder_for(
    rule: Source | Validation, dataset: str, wanted: LabelSpace, recipe: Recipe, where: str
) -> LabelDecoder:
    if dataset == "folder" or rule.label_map is not None or rule.label_space is not None:
        return label_decoder(rule, wanted, where, via=training_space(recipe))
    layout = known_layout(dataset, where)
    stored = layout.decoder()
    table = space_table(BUILT_IN[layout.label_space], wanted)
    return IdLabels(table[stored.table], stored.allowed, layout.label_space)
