"""Files of a known data set, in its layout on disk."""

from collections.abc import Sequence
from pathlib import Path

from domainbridge.data.folder import Listing, report_missing
from domainbridge.data.layouts.base import LAYOUTS, DirectoryScheme, Layout
from domainbridge.data.walk import IMAGE_SUFFIXES, files_below, suffix_of
from domainbridge.errors import RecipeError

__all__ = ["known_layout", "list_layout", "split_of"]

_Pair = tuple[Path, Path | None]
"""Image and label; None for a label that is not needed or does not exist."""


def known_layout(name: str, where: str) -> Layout:
    """The layout with that name.

    Raises:
        RecipeError: no layout has this name.
    """
    names = LAYOUTS.names()
    if name not in names:
        raise RecipeError(
            f"{where}: data set {name!r} is unknown; known are {', '.join(names)} (and 'folder' in a recipe)"
        )
    return LAYOUTS[name]


def split_of(name: str, split: str | None, where: str, default: str) -> str | None:
    """The requested split, else the default split; None for a data set without splits.

    Raises:
        RecipeError: the layout or its split is unknown.
    """
    layout = known_layout(name, where)
    if split is not None and split not in layout.splits:
        known = ", ".join(layout.splits) or "no splits: leave the key out"
        raise RecipeError(f"{where}: split: {name} has {known}, found {split!r}")
    return split or (default if layout.splits else None)


def list_layout(name: str, root: Path, split: str | None, exclude_files: tuple[str, ...], *, labeled: bool) -> Listing:
    """Images and, if ``labeled``, labels of a data set, in the order of their names.

    Args:
        name: name of the layout.
        root: folder with the unpacked archives.
        split: a split of the layout; None for a data set without splits.
        exclude_files: images to leave out, as file names without the suffix.
        labeled: whether labels are needed.
    """
    layout = LAYOUTS[name]
    folders = layout.splits[split] if split is not None else ("",)
    scheme = _existing_scheme(layout, root, folders)
    problems: list[str] = []
    pairs: list[_Pair] = []
    for folder in folders:
        pairs += _pairs(layout, scheme, root, folder, labeled, problems)
    notes = []
    expected = layout.counts.get(split or "")
    if pairs and expected is not None and len(pairs) < expected:
        notes.append(
            f"{len(pairs)} images, but the complete {name}{f' {split}' if split else ''} has {expected}; "
            f"unless this is intended: {layout.unpack}"
        )
    if pairs:
        stems = {image.stem for image, _ in pairs}
        report_missing(exclude_files, stems, "exclude_files names images that do not exist", root, problems)
        pairs = [(image, label) for image, label in pairs if image.stem not in exclude_files]
        if not pairs:
            problems.append(f"exclude_files leaves no image of {name} at {root}")
    if not labeled:
        return Listing(tuple(image for image, _ in pairs), None, tuple(problems), tuple(notes))
    complete = [(image, label) for image, label in pairs if label is not None]
    if len(complete) < len(pairs):
        example = next(image for image, label in pairs if label is None)
        expected_name = scheme.label_name(example.stem)
        problems.append(
            f"{len(pairs) - len(complete)} of {len(pairs)} images have no label, e.g. {example}, with the expected "
            f"label name {expected_name}; {layout.unpack}"
        )
    images, labels = tuple(image for image, _ in complete), tuple(label for _, label in complete)
    return Listing(images, labels, tuple(problems), tuple(notes))


def _existing_scheme(layout: Layout, root: Path, folders: Sequence[str]) -> DirectoryScheme:
    """The first scheme with existing folders of images and labels, else of images, else the first scheme."""

    def exist(below: str) -> bool:
        return all((root / below.format(split=folder)).is_dir() for folder in folders)

    with_images = [scheme for scheme in layout.schemes if exist(scheme.images)]
    with_labels = [scheme for scheme in with_images if exist(scheme.labels)]
    return [*with_labels, *with_images, layout.schemes[0]][0]


def _pairs(
    layout: Layout, scheme: DirectoryScheme, root: Path, folder: str, labeled: bool, problems: list[str]
) -> list[_Pair]:
    """Images of one folder of a split, with their labels if ``labeled``."""
    images, labels = root / scheme.images.format(split=folder), root / scheme.labels.format(split=folder)
    for kind, path, needed in (("images", images, True), ("labels", labels, labeled)):
        if needed and not path.is_dir():
            problems.append(f"{layout.title} expects its {kind} at {path}; {layout.unpack} (root: {root})")
            return []
    by_name = {}  # image -> its label's name
    for name in files_below(images).names:
        label = scheme.label_name(name.rpartition(".")[0])
        if suffix_of(name) in IMAGE_SUFFIXES and label is not None:
            by_name[name] = label
    if not by_name:
        pattern = f"{scheme.image_start}*{scheme.image_ending}"
        named = f" has a name like {pattern}" if pattern != "*" else ""
        problems.append(f"no image below {images}{named}")
    if not labeled:
        return [(images / name, None) for name in by_name]
    existing = set(files_below(labels).names)
    return [(images / name, labels / label if label in existing else None) for name, label in by_name.items()]
