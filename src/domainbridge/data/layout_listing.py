"""The files of a known data set, as its archives unpack."""

from collections.abc import Sequence
from pathlib import Path, PurePath

from domainbridge.data.layouts import LAYOUTS, Layout, Place
from domainbridge.data.listing import IMAGE_SUFFIXES, Listing, Walk, report_missing
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
    walk = Walk(_where_it_may_lie(layout, root, folders))
    pairs: list[tuple[str, str | None]] = []
    for folder in folders:
        pairs += _layout_pairs(layout, place, root, folder, labelled, problems, walk)
    notes = []
    expected = layout.counts.get(split or "")
    if pairs and expected is not None and len(pairs) < expected:
        notes.append(
            f"{len(pairs)} images, where the complete {name}{f' {split}' if split else ''} has {expected}; "
            f"if that is not on purpose: {layout.unpack}"
        )
    if pairs:
        report_missing(
            exclude, {_stem(image) for image, _ in pairs}, "exclude names images that are not there", root, problems
        )
        pairs = [(image, label) for image, label in pairs if _stem(image) not in exclude]
        if not pairs:
            problems.append(f"exclude leaves no image of {name} at {root}")
    if not labelled:
        images = PathList((image for image, _ in pairs), str(root))
        return Listing(images, None, tuple(problems), tuple(notes), tuple(walk.watched), walk.seen)
    without = [image for image, label in pairs if label is None]
    if without:
        expected_name = f"{_stem(without[0]).removesuffix(place.image_ending)}{place.label_ending}"
        problems.append(
            f"{len(without)} of {len(pairs)} images have no label, e.g. {root / without[0]}, whose label would be "
            f"called {expected_name}; {layout.unpack}"
        )
    complete = [(image, label) for image, label in pairs if label is not None]
    images, labels = (PathList(names, str(root)) for names in (zip(*complete, strict=True) if complete else ((), ())))
    return Listing(images, labels, tuple(problems), tuple(notes), tuple(walk.watched), walk.seen)


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


def _where_it_may_lie(layout: Layout, root: Path, folders: Sequence[str]) -> list[str]:
    """The innermost existing folders on the way to each place: another place can only appear by changing one."""
    wanted = {root / below.format(split=f) for p in layout.places for below in (p.images, p.labels) for f in folders}
    there = {next((path for path in (want, *want.parents) if path.is_dir()), root) for want in wanted}
    return sorted(map(str, there))


def _layout_pairs(
    layout: Layout, place: Place, root: Path, folder: str, labelled: bool, problems: list[str], walk: Walk
) -> list[tuple[str, str | None]]:
    """Images and labels, both relative to ``root``."""
    images, labels = place.images.format(split=folder), place.labels.format(split=folder)
    for kind, path, needed in (("images", root / images, True), ("labels", root / labels, labelled)):
        if needed and not path.is_dir():
            problems.append(f"{layout.title} expects its {kind} at {path}; for root {root}: {layout.unpack}")
            return []
    ending = place.image_ending
    stems = {}
    for name in walk.names_below(root / images):
        body, _, suffix = name.rpartition(".")
        if f".{suffix.lower()}" in IMAGE_SUFFIXES and body.endswith(ending):
            stems[name] = body.removesuffix(ending)
    if not stems:
        named = f" has a name ending in {ending}" if ending else ""
        problems.append(f"no image below {root / images}{named}")
    if not labelled:
        return [(f"{images}/{name}", None) for name in stems]
    there = set(walk.names_below(root / labels))
    named_labels = ((name, stem + place.label_ending) for name, stem in stems.items())
    return [(f"{images}/{name}", f"{labels}/{label}" if label in there else None) for name, label in named_labels]


def _stem(name: str) -> str:
    return PurePath(name).stem
