"""The files of a known data set, as its archives unpack."""

from collections.abc import Sequence
from pathlib import Path

from domainbridge.data.layouts import LAYOUTS, Layout, Place
from domainbridge.data.listing import IMAGE_SUFFIXES, Listing, complete_pairs, files_below, report_missing
from domainbridge.data.path_list import PathList
from domainbridge.errors import RecipeError

__all__ = ["known_layout", "list_layout", "split_of"]


def list_layout(name: str, root: Path, split: str | None, exclude: tuple[str, ...], *, labelled: bool) -> Listing:
    """Images and, if wanted, labels of a known layout, in the order of their names.

    Args:
        name: of the layout.
        root: where the archive was unpacked.
        split: one of the layout's; None for a set without splits.
        exclude: file names of images, without suffix, to leave out.
        labelled: whether labels are needed.
    """
    layout = LAYOUTS[name]
    folders = layout.splits[split] if split is not None else ("",)
    place = _place(layout, root, folders)
    problems: list[str] = []
    pairs: list[tuple[Path, Path | None]] = []
    for folder in folders:
        pairs += _layout_pairs(layout, place, root, folder, labelled, problems)
    notes = []
    expected = layout.counts.get(split or "")
    if pairs and expected is not None and len(pairs) < expected:
        notes.append(
            f"{len(pairs)} images, where the complete {name}{f' {split}' if split else ''} has {expected}; "
            f"if that is not on purpose: {layout.unpack}"
        )
    if pairs:
        report_missing(
            exclude, {image.stem for image, _ in pairs}, "exclude names images that are not there", root, problems
        )
        pairs = [(image, label) for image, label in pairs if image.stem not in exclude]
        if not pairs:
            problems.append(f"exclude leaves no image of {name} at {root}")
    if not labelled:
        return Listing(PathList(image for image, _ in pairs), None, tuple(problems), tuple(notes))
    without = [image for image, label in pairs if label is None]
    if without:
        expected_name = f"{without[0].stem.removesuffix(place.image_ending)}{place.label_ending}"
        problems.append(
            f"{len(without)} of {len(pairs)} images have no label, e.g. {without[0]}, whose label would be called "
            f"{expected_name}; {layout.unpack}"
        )
    return complete_pairs(pairs, problems, notes)


def known_layout(name: str, where: str) -> Layout:
    """The layout of that name.

    Raises:
        RecipeError: unknown.
    """
    if name not in LAYOUTS:
        raise RecipeError(
            f"{where}: data set {name!r} is unknown; known are {', '.join(LAYOUTS)} (and 'folder' in a recipe)"
        )
    return LAYOUTS[name]


def _place(layout: Layout, root: Path, folders: Sequence[str]) -> Place:
    """How the set lies at ``root``: the first place whose images (or else labels) are there, else the first."""
    wanted = [(place, [root / place.images.format(split=folder) for folder in folders]) for place in layout.places]
    there = [place for place, paths in wanted if all(path.is_dir() for path in paths)]
    with_labels = [p for p in there if all((root / p.labels.format(split=folder)).is_dir() for folder in folders)]
    return [*with_labels, *there, layout.places[0]][0]


def split_of(name: str, split: str | None, where: str, default: str) -> str | None:
    """The split to read: the one asked for, else the default; None for a set without splits.

    Raises:
        RecipeError: the layout or its split is unknown.
    """
    layout = known_layout(name, where)
    if split is not None and split not in layout.splits:
        known = ", ".join(layout.splits) or "no splits: leave it out"
        raise RecipeError(f"{where}: split: {name} has {known}, found {split!r}")
    return split or (default if layout.splits else None)


def _layout_pairs(
    layout: Layout, place: Place, root: Path, folder: str, labelled: bool, problems: list[str]
) -> list[tuple[Path, Path | None]]:
    image_folder = root / place.images.format(split=folder)
    label_folder = root / place.labels.format(split=folder)
    for kind, path, needed in (("images", image_folder, True), ("labels", label_folder, labelled)):
        if needed and not path.is_dir():
            problems.append(f"{layout.title} expects its {kind} at {path}; for root {root}: {layout.unpack}")
            return []
    ending = place.image_ending
    images = {
        name: path
        for name, path in files_below(image_folder).items()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.stem.endswith(ending)
    }
    if not images:
        problems.append(f"no image below {image_folder}{f' has a name ending in {ending}' if ending else ''}")
    if not labelled:
        return [(path, None) for path in images.values()]
    labels = files_below(label_folder)
    return [
        (path, labels.get(name.removesuffix(path.suffix).removesuffix(ending) + place.label_ending))
        for name, path in images.items()
    ]
