"""The labeled sections of a target, with the values that each takes from another section where it has none."""

from typing import Any, TypeVar

from domainbridge.config.domains import FewConfig, OracleConfig, SourceConfig, TargetConfig, ValidationConfig
from domainbridge.config.schema import Recipe
from domainbridge.data.name_pattern import STEM

__all__ = ["held_out_targets", "labeled_sections", "with_few_labels"]

Section = TypeVar("Section", ValidationConfig, OracleConfig, FewConfig)
Scored = TypeVar("Scored", ValidationConfig, FewConfig)

_IMAGE_KEYS = frozenset({"bands", "scale", "percentiles", "exif"})
_LABEL_VALUES = frozenset({"label_map", "label_space"})
_WHICH_FILES = frozenset({"split", "exclude_files"})


def labeled_sections(target: TargetConfig, *, oracle: bool = True) -> dict[str, ValidationConfig | OracleConfig]:
    """The sections ``validation``, ``test`` and ``oracle`` that a target has, complete.

    Args:
        target: with its sections.
        oracle: whether the labels of the training images are wanted.
    """
    sections: dict[str, ValidationConfig | OracleConfig] = {}
    if target.validation is not None:
        sections["validation"] = _completed(target.validation, target)
    if target.test is not None:
        sections["test"] = _completed(_like_validation(target.test, target), target)
    if oracle and target.oracle is not None:
        files = {key: getattr(target, key) for key in _WHICH_FILES if key not in target.oracle.model_fields_set}
        sections["oracle"] = _completed(target.oracle.model_copy(update=files), target)
    return sections


def held_out_targets(recipe: Recipe) -> list[str]:
    """The targets of which ``evaluation.hold_out`` keeps validation images for the final score."""
    if not recipe.evaluation.hold_out:
        return []
    return [target.name for target in recipe.targets if target.validation is not None and target.test is None]


def with_few_labels(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with a further source for each section ``few`` of a target, and the problems of that.

    From there on, a few labeled target images are a source with a share of its own, named ``TARGET-few``.
    """
    sources, targets, problems = list(recipe.sources), [], []
    for target in recipe.targets:
        if target.few is not None:
            source = _few_source(target.few, target)
            if source.labels is None and target.dataset == "folder":
                problems.append(f"targets.{target.name}.few.labels: missing; path to the folder of the labels")
            if source.name in {other.name for other in sources}:
                problems.append(f"targets.{target.name}.few: a source has the name {source.name}; rename that source")
            sources.append(source)
        targets.append(target.model_copy(update={"few": None}))
    total = sum(source.share or 0 for source in sources)
    if total >= 1 and (total > 1 or any(source.share is None for source in sources)):
        problems.append(f"sources: the shares have the sum {total:g}, which leaves nothing for the others; lower them")
    return recipe.model_copy(update={"sources": tuple(sources), "targets": tuple(targets)}), problems


def _few_source(few: FewConfig, target: TargetConfig) -> SourceConfig:
    section = _completed(_like_validation(few, target), target)
    values = {key: getattr(section, key) for key in FewConfig.model_fields}
    return SourceConfig.model_construct(
        **values, name=f"{target.name}-few", dataset=target.dataset, license=target.license
    )


def _like_validation(test: Scored, target: TargetConfig) -> Scored:
    """A section with what the validation says and the section does not; which files they are is never inherited."""
    given = test.model_fields_set
    inherited: dict[str, Any] = {}
    if target.validation is not None:
        keys = target.validation.model_fields_set & set(type(test).model_fields) - given - _WHICH_FILES
        for alternatives in (_LABEL_VALUES, _IMAGE_KEYS):  # keys of which one says what another would
            if given & alternatives:
                keys -= alternatives
        inherited = {key: getattr(target.validation, key) for key in keys}
    if target.dataset != "folder" and test.split is None and isinstance(test, ValidationConfig):
        inherited["split"] = "test"
    return test.model_copy(update=inherited)


def _completed(given: Section, target: TargetConfig) -> Section:
    """A section with the target's values where it has none of its own."""
    inherited = {
        "root": given.root or target.root,
        "images": given.images or target.images,
        "image_pattern": given.image_pattern if given.image_pattern != STEM else target.image_pattern,
        "resize": given.resize or target.resize,
    }
    if not given.model_fields_set & _IMAGE_KEYS:
        inherited |= {key: getattr(target, key) for key in _IMAGE_KEYS}
    return given.model_copy(update=inherited)
