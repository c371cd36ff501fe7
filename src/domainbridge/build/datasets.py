"""From a recipe's domains to data sets."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from domainbridge.build.annotations import annotation_place
from domainbridge.build.label_sets import with_partial_backgrounds
from domainbridge.build.label_space import source_decoder, training_space, validation_decoder
from domainbridge.build.paths import PACKAGED, below
from domainbridge.build.target_sections import held_out_targets, labeled_sections
from domainbridge.config.domains import (
    ImagesConfig,
    OracleConfig,
    ResizeConfig,
    SourceConfig,
    TargetConfig,
    ValidationConfig,
)
from domainbridge.config.schema import Recipe
from domainbridge.data.annotations.labels import AnnotationLabels
from domainbridge.data.annotations.listing import list_annotations
from domainbridge.data.bands import ImageRule
from domainbridge.data.dataset import ConcatDataset, FileDataset
from domainbridge.data.folder import FolderRule, Listing, list_folder
from domainbridge.data.hold_out import hold_out
from domainbridge.data.layout_listing import list_layout, split_of
from domainbridge.data.name_pattern import STEM
from domainbridge.data.transforms import ResizeRule
from domainbridge.errors import DataError, InputError, RecipeError, problem_list

__all__ = [
    "DataSets",
    "data_root",
    "image_rule",
    "list_data",
    "open_data",
    "resize_rule",
    "resolved_root",
]

AnyDomain = SourceConfig | TargetConfig | ValidationConfig | OracleConfig


@dataclass(frozen=True)
class DataSets:
    """Everything that a recipe reads.

    Attributes:
        sources: labeled, in the recipe's space.
        targets: unlabeled.
        validation: by target name; labeled, in the scoring space, labels at their stored size.
        test: likewise; images that score the final model and the baselines only.
        oracle: by target name; labeled, in the recipe's space, for stage oracle; empty without ``oracle: true``.
    """

    sources: tuple[FileDataset, ...]
    targets: tuple[FileDataset, ...]
    validation: dict[str, FileDataset]
    test: dict[str, FileDataset] = field(default_factory=dict)
    oracle: dict[str, FileDataset] = field(default_factory=dict)

    @property
    def domains(self) -> tuple[FileDataset, ...]:
        """Every set of files once."""
        return (*self.sources, *self.targets, *self.oracle.values(), *self.scored)

    @property
    def scored(self) -> tuple[FileDataset, ...]:
        """Every set of labeled images for scores."""
        return (*self.validation.values(), *self.test.values())

    @property
    def trained(self) -> tuple[FileDataset, ...]:
        """Every set of images that a stage learns from."""
        return (*self.sources, *self.targets, *self.oracle.values())

    @property
    def source(self) -> ConcatDataset:
        """All sources, one after the other."""
        return ConcatDataset(self.sources)

    @property
    def target(self) -> ConcatDataset:
        """All targets, one after the other."""
        return ConcatDataset(self.targets)


def data_root(recipe: Recipe) -> Path:
    """The recipe's data_root, else the environment's, else 'data'; ``package:NAME`` is data shipped with us."""
    root = recipe.data_root or os.environ.get("DOMAINBRIDGE_DATA") or "data"
    return below(Path(), root, "data_root")


def resolved_root(recipe: Recipe) -> str:
    """The data root as a run folder's recipe keeps it: absolute, or data shipped with the package."""
    given = recipe.data_root or ""
    return given if given.startswith(PACKAGED) else str(data_root(recipe).absolute())


def resize_rule(resize: ResizeConfig | None) -> ResizeRule | None:
    """The recipe's resize, if any."""
    return None if resize is None else ResizeRule(resize.width, resize.height, resize.keep_ratio, resize.min_side)


def image_rule(domain: ImagesConfig) -> ImageRule:
    """How a domain's image files become 8-bit RGB."""
    return ImageRule(domain.bands, domain.scale, domain.percentiles, domain.exif)


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

    def opened_set(where: str, domain: AnyDomain, dataset: str) -> FileDataset:
        try:
            samples, problems_here = _open(domain, dataset, root, recipe, where)
        except InputError as error:
            problems.append(str(error))
            return FileDataset(where, ())
        except OSError as error:  # a folder without the right to read, a disk that is gone
            problems.append(f"{where}: {error.filename}: {error.strerror}")
            return FileDataset(where, ())
        problems.extend(f"{where}: {problem}" for problem in problems_here)
        return samples

    sources = tuple(opened_set(f"sources.{source.name}", source, source.dataset) for source in recipe.sources)
    if len(sources) > 1 and not problems:
        complete = [source.complete_background for source in recipe.sources]
        sources = with_partial_backgrounds(sources, complete, training_space(recipe))
    targets = tuple(opened_set(f"targets.{target.name}", target, target.dataset) for target in recipe.targets)
    labeled: dict[str, dict[str, FileDataset]] = {"validation": {}, "test": {}, "oracle": {}}
    for target in recipe.targets:
        for role, section in labeled_sections(target, oracle=recipe.oracle).items():
            labeled[role][target.name] = opened_set(f"targets.{target.name}.{role}", section, target.dataset)
    for target in recipe.targets:
        if target.name in held_out_targets(recipe) and len(labeled["validation"][target.name]):
            parts = _held_out(labeled["validation"][target.name], target, recipe, problems)
            labeled["validation"][target.name], labeled["test"][target.name] = parts
    return DataSets(sources, targets, **labeled), problems


def _held_out(
    validation: FileDataset, target: TargetConfig, recipe: Recipe, problems: list[str]
) -> tuple[FileDataset, FileDataset]:
    """A target's validation images in two parts: those for every score, and those for the final one."""
    section = labeled_sections(target)["validation"]
    root = below(data_root(recipe), section.root or "", f"{validation.name}.root")
    kept, held = hold_out(validation, (root / (section.images or ""), root), recipe.evaluation.hold_out)
    if not len(kept):
        problems.append(
            f"evaluation.hold_out: {validation.name} has one image, which cannot be in two parts; leave the key out, "
            "or give a section test"
        )
    return kept, held


def _open(
    domain: AnyDomain, dataset: str, root: Path, recipe: Recipe, where: str
) -> tuple[FileDataset, tuple[str, ...]]:
    """The files of a domain that can be used, and what is wrong with others."""
    folder = below(root, domain.root or "", f"{where}.root")
    place = None
    if dataset == "folder":
        listing, place = _folder(domain, folder, where)
    else:
        listing = _layout(domain, dataset, folder, where)
    decoder = None
    if not isinstance(domain, TargetConfig):
        decoder_of = validation_decoder if isinstance(domain, ValidationConfig) else source_decoder
        decoder = decoder_of(recipe, domain, dataset, folder, where, place)
    samples = FileDataset(
        where,
        listing.images,
        listing.labels,
        decoder,
        resize_rule(domain.resize),
        resize_labels=not isinstance(domain, ValidationConfig),
        label_scale=domain.label_scale if isinstance(domain, ValidationConfig) else 1.0,
        notes=(*listing.notes, *(decoder.notes if isinstance(decoder, AnnotationLabels) else ())),
        image_rule=image_rule(domain),
        label_resize=not isinstance(domain, TargetConfig) and domain.label_resize,
        published=recipe.fidelity == "published",
        classes=training_space(recipe).classes,
    )
    return samples, listing.problems


def _layout(domain: AnyDomain, dataset: str, folder: Path, where: str) -> Listing:
    labels_too = () if isinstance(domain, TargetConfig) else ("labels", "label_pattern")
    useless = [key for key in ("images", "image_pattern", *labels_too) if getattr(domain, key) not in (None, STEM)]
    if useless:
        raise RecipeError(f"{where}: dataset {dataset} knows its folders; leave out {' and '.join(useless)}")
    split = split_of(dataset, domain.split, where, default="val" if isinstance(domain, ValidationConfig) else "train")
    labeled = not isinstance(domain, TargetConfig)
    return list_layout(dataset, folder, split, domain.exclude_files, labeled=labeled)


def _folder(domain: AnyDomain, folder: Path, where: str) -> tuple[Listing, tuple[str, Path] | None]:
    """The files of a folder data set, and format and place of the annotation that is in the place of masks, if any."""
    labeled = None if isinstance(domain, TargetConfig) else domain
    absent = [] if domain.images is not None else ["images"]
    if labeled is not None and labeled.labels is None:
        absent.append("labels")
    if absent or domain.images is None:
        raise RecipeError(f"{where}: a folder data set needs {' and '.join(absent)} (folders relative to root)")
    labels = None
    if labeled is not None and labeled.labels is not None:
        labels = below(folder, labeled.labels, f"{where}.labels")
    rule = FolderRule(
        split=below(folder, domain.split, f"{where}.split") if domain.split else None,
        image_pattern=domain.image_pattern,
        label_pattern=labeled.label_pattern if labeled is not None else STEM,
        exclude_files=domain.exclude_files,
    )
    images = below(folder, domain.images, f"{where}.images")
    place = None if labeled is None or labels is None else annotation_place(labeled, images, labels)
    listing = list_folder(images, labels, rule) if place is None else list_annotations(images, *place, rule)
    return listing, place
