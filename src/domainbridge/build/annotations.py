"""From a recipe's keys about labels to annotations: where they are, and what their categories mean."""

import difflib
from itertools import product
from pathlib import Path

from domainbridge.config.domains import LabelsConfig
from domainbridge.data.annotations.base import FORMATS, Category
from domainbridge.data.annotations.find import locate
from domainbridge.data.annotations.labels import AnnotationLabels
from domainbridge.data.annotations.reading import BACKGROUND_NAMES, first_names, normal
from domainbridge.data.label_map import train_id_of
from domainbridge.data.label_map_keys import color_key, id_key
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.name_pattern import STEM
from domainbridge.data.storage.tar import is_archives
from domainbridge.data.walk import IMAGE_SUFFIXES, LABEL_SUFFIXES
from domainbridge.errors import RecipeError
from domainbridge.types import IGNORE

__all__ = ["annotation_decoder", "annotation_place"]

_IGNORED = "ignore"
_LOOKED_AT = 5
"""Labels whose names are compared with those of the images."""
_NAMED = 12
"""Names in a message."""
_WITH_IMAGES = ("labelmap", "coco-panoptic", "coco-stuff", "label-studio-masks", "class-masks", "channels")
"""Formats whose labels are images, and which could be taken for plain masks."""


def annotation_place(rule: LabelsConfig, images: Path | None, labels: Path) -> tuple[str, Path] | None:
    """Format and place of the annotation that ``labels`` names; None for a folder of masks.

    A folder with images of its own is an annotation only in a format whose labels are images, and only if no
    ``label_map`` gives a meaning to values or colors.

    Raises:
        DataError: a folder holds several annotations.
        RecipeError: the format is unknown.
    """
    if rule.annotation_format is not None:
        FORMATS[rule.annotation_format]
        return locate(labels, rule.annotation_format)
    if is_archives(labels) or not labels.exists():
        return None
    if labels.is_file():
        return locate(labels)
    suffix = Path(rule.label_pattern).suffix.lower()
    by_value = any(id_key(key) is not None or color_key(key) is not None for key in rule.label_map or ())
    if not (suffix in LABEL_SUFFIXES or (suffix == "" and _has_own_images(images, labels))):
        place = locate(labels)
    elif by_value or rule.label_pattern != STEM:
        return None
    else:
        place = locate(labels, among=_WITH_IMAGES)
    # Folders of sequences with the same file names, day/0001.png and night/0001.png, are no folders of classes.
    return None if place is not None and place[0] == "class-masks" and _named_as_images(images, labels) else place


def _has_own_images(images: Path | None, labels: Path) -> bool:
    """Whether the folder of labels has image files that are not those of the domain."""
    if images is not None and images.resolve() == labels.resolve():
        return False
    below = (
        f"{images.relative_to(labels).as_posix()}/" if images is not None and images.is_relative_to(labels) else None
    )
    names = (name for name in first_names(labels, 1000) if below is None or not name.startswith(below))
    return any(Path(name).suffix.lower() in LABEL_SUFFIXES for name in names)


def _named_as_images(images: Path | None, labels: Path) -> bool:
    """Whether a label has the relative name of an image, as plain masks have."""
    if images is None or is_archives(images) or not images.is_dir():
        return False
    stems = (name.rpartition(".")[0] for name in first_names(labels, _LOOKED_AT))
    endings = (ending for suffix in IMAGE_SUFFIXES for ending in (suffix, suffix.upper()))
    return any((images / f"{stem}{ending}").is_file() for stem, ending in product(stems, tuple(endings)))


def annotation_decoder(rule: LabelsConfig, place: tuple[str, Path], space: LabelSpace, where: str) -> AnnotationLabels:
    """How the categories of an annotation become train ids of ``space``: by ``label_map``, then by equal names.

    Raises:
        RecipeError: a key or value has no meaning, or no category has a class.
        DataError: the annotation is damaged.
    """
    name, root = place
    categories = FORMATS[name].index(root).categories
    train_ids = _by_names(categories, space, numbered=name == "channels")
    problems = _apply_map(rule, categories, space, train_ids)
    background = _background(rule, space, name, problems)
    if categories and not problems and all(value == IGNORE for value in train_ids.values()):
        problems.append(
            f"no category of {root} is a class of {space.name}: categories are {_some([c.name for c in categories])}; "
            f"classes are {_some(space.classes)}. Set label_map: {{{categories[0].name}: {space.classes[-1]}, ...}}"
        )
    if problems:
        raise RecipeError(f"{where}: " + "; ".join(problems))
    return AnnotationLabels(name, root, train_ids, background, _notes(categories, train_ids, background, space))


def _by_names(categories: tuple[Category, ...], space: LabelSpace, *, numbered: bool) -> dict[str, int]:
    """Category -> train id of the class of an equal name, else 255."""
    classes = {normal(name): number for number, name in enumerate(space.classes)}
    if numbered and len(categories) == len(space):
        return {category.name: number for number, category in enumerate(categories)}
    return {category.name: classes.get(normal(category.name), IGNORE) for category in categories}


def _apply_map(
    rule: LabelsConfig, categories: tuple[Category, ...], space: LabelSpace, train_ids: dict[str, int]
) -> list[str]:
    """Take in ``label_map``; its problems."""
    by_name = {normal(category.name): category.name for category in categories}
    by_id = {category.id: category.name for category in categories if category.id is not None}
    problems = []
    for key, value in (rule.label_map or {}).items():
        category = by_name.get(normal(str(key)))
        if category is None and str(key).isdigit():
            category = by_id.get(int(key))
        train_id = train_id_of(value, space)
        if category is None:
            close = difflib.get_close_matches(normal(str(key)), by_name, n=1)
            hint = f"; did you mean {by_name[close[0]]}?" if close else ""
            problems.append(
                f"label_map: no category {key!r}{hint}; categories are {_some([c.name for c in categories])}"
            )
        if train_id is None:
            problems.append(
                f"label_map: value {value!r} of {key!r}: expected a class of {space.name}, a train id or 'ignore'"
            )
        if category is not None and train_id is not None:
            train_ids[category] = train_id
    return problems


def _background(rule: LabelsConfig, space: LabelSpace, name: str, problems: list[str]) -> int:
    """Train id of pixels without annotation."""
    if rule.unannotated is not None:
        train_id = train_id_of(rule.unannotated, space)
        if train_id is None:
            problems.append(f"unannotated: {rule.unannotated!r}; expected a class of {space.name} or 'ignore'")
        return IGNORE if train_id is None else train_id
    if not FORMATS[name].background:
        return IGNORE
    return next((number for number, c in enumerate(space.classes) if normal(c) in BACKGROUND_NAMES), IGNORE)


def _notes(
    categories: tuple[Category, ...], train_ids: dict[str, int], background: int, space: LabelSpace
) -> tuple[str, ...]:
    named = "ignored" if background == IGNORE else space.classes[background]
    notes = [f"pixels without annotation: {named} (key: unannotated)"]
    without = [c.name for c in categories if train_ids[c.name] == IGNORE and normal(c.name) != _IGNORED]
    if without:
        classes = {normal(name): name for name in space.classes}
        near = [(name, difflib.get_close_matches(normal(name), classes, n=1, cutoff=0.8)) for name in without]
        hinted = [f"{name} (is it {classes[close[0]]}? label_map)" if close else name for name, close in near]
        notes.append(f"categories without a class, ignored: {_some(hinted)}")
    return tuple(notes)


def _some(names: "list[str] | tuple[str, ...]") -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
