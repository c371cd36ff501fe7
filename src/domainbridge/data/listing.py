"""Which files a domain consists of: folders of images with their mirror image of labels, or a known layout."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbridge.data.label_files import LabelDecoder
from domainbridge.data.layouts import LAYOUTS, Layout, Place
from domainbridge.errors import DataError, RecipeError, problem_list

__all__ = [
    "IMAGE_SUFFIXES",
    "FolderRule",
    "Listing",
    "known_layout",
    "layout_decoder",
    "list_folder",
    "list_layout",
    "split_of",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
_STEM = "{stem}"


@dataclass(frozen=True)
class Listing:
    """The files of a domain.

    Attributes:
        images: in the order of their names, or of the split file; only those that can be used.
        labels: in the same order; None for an unlabelled domain.
        problems: what forbids training, each a sentence.
        notes: what is worth knowing, each a sentence.
    """

    images: tuple[Path, ...]
    labels: tuple[Path, ...] | None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def checked(self, where: str) -> "Listing":
        """The same listing.

        Raises:
            DataError: it has problems; all are listed.
        """
        if len(self.problems) == 1:
            raise DataError(f"{where}: {self.problems[0]}")
        if self.problems:
            raise DataError(problem_list(f"{where}: {len(self.problems)} problems", self.problems))
        return self


@dataclass(frozen=True)
class FolderRule:
    """Which files below a folder belong to a domain, and which label belongs to an image.

    Attributes:
        split: text file that lists stems, one per line; None takes every image.
        image_pattern: path below the images folder; ``{stem}`` stands for what image and label share. Without a
            suffix any image suffix fits.
        label_pattern: likewise, below the labels folder.
        exclude: stems to leave out.
    """

    split: Path | None = None
    image_pattern: str = _STEM
    label_pattern: str = _STEM
    exclude: tuple[str, ...] = ()


def list_folder(images: Path, labels: Path | None, rule: FolderRule) -> Listing:
    """Images of a folder and below, and their labels at the same stem below another; ``labels`` None: unlabelled."""
    problems: list[str] = []
    notes: list[str] = []
    by_stem = _index(images, rule.image_pattern, "images", problems)
    stems = list(by_stem)
    if rule.split is not None:
        stems = _split_stems(rule.split, problems)
        if by_stem:
            _report_missing(stems, by_stem, f"{rule.split} lists images that are not there", images, problems)
    _report_missing(rule.exclude, by_stem, "exclude names images that are not there", images, problems)
    excluded = set(rule.exclude)
    stems = [stem for stem in stems if stem in by_stem and stem not in excluded]
    if labels is None:
        return Listing(tuple(by_stem[stem] for stem in stems), None, tuple(problems))
    label_by_stem = _index(labels, rule.label_pattern, "labels", problems)
    if label_by_stem:
        _report_missing(stems, label_by_stem, "images without label", labels, problems)
    if rule.split is None:
        unused = [stem for stem in label_by_stem if stem not in by_stem]
        if unused:
            notes.append(
                f"labels without image: {len(unused)} of {len(label_by_stem)}, e.g. {label_by_stem[unused[0]]}"
            )
    return _paired([(by_stem[stem], label_by_stem.get(stem)) for stem in stems], problems, notes)


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
    left_out = set(exclude)
    pairs = [(image, label) for image, label in pairs if image.stem not in left_out]
    notes = []
    expected = layout.counts.get(split or "")
    if pairs and expected is not None and len(pairs) + len(left_out) < expected:
        notes.append(
            f"{len(pairs)} images, where the complete {name}{f' {split}' if split else ''} has {expected}; "
            f"if that is not on purpose: {layout.unpack}"
        )
    if not labelled:
        return Listing(tuple(image for image, _ in pairs), None, tuple(problems), tuple(notes))
    without = [image for image, label in pairs if label is None]
    if without:
        expected_name = f"{without[0].stem.removesuffix(place.image_ending)}{place.label_ending}"
        problems.append(
            f"{len(without)} of {len(pairs)} images have no label, e.g. {without[0]}, whose label would be called "
            f"{expected_name}; {layout.unpack}"
        )
    return _paired(pairs, problems, notes)


def known_layout(name: str, where: str) -> Layout:
    """The layout of that name.

    Raises:
        RecipeError: unknown.
    """
    if name not in LAYOUTS:
        raise RecipeError(f"{where}.dataset: {name!r} is unknown; known are folder, {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _place(layout: Layout, root: Path, folders: Sequence[str] = ("",)) -> Place:
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
        raise RecipeError(f"{where}.split: {name} has {known}, found {split!r}")
    return split or (default if layout.splits else None)


def layout_decoder(layout: Layout, root: Path) -> LabelDecoder:
    """How the labels of the set at ``root`` are read.

    Raises:
        DataError: the set's own list of classes is needed and missing or unreadable.
    """
    folders = next(iter(layout.splits.values()), ("",))
    return (_place(layout, root, folders).decoder or layout.decoder)(root)


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
        for name, path in _files_below(image_folder).items()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.stem.endswith(ending)
    }
    if not images:
        problems.append(f"no image below {image_folder}{f' has a name ending in {ending}' if ending else ''}")
    if not labelled:
        return [(path, None) for path in images.values()]
    labels = _files_below(label_folder)
    return [
        (path, labels.get(name.removesuffix(path.suffix).removesuffix(ending) + place.label_ending))
        for name, path in images.items()
    ]


def _paired(pairs: list[tuple[Path, Path | None]], problems: list[str], notes: list[str]) -> Listing:
    complete = [(image, label) for image, label in pairs if label is not None]
    images, labels = tuple(image for image, _ in complete), tuple(label for _, label in complete)
    return Listing(images, labels, tuple(problems), tuple(notes))


def _files_below(folder: Path) -> dict[str, Path]:
    """Path below ``folder`` with forward slashes -> file, sorted; hidden files are left out."""
    found = {}
    for directory, subfolders, names in os.walk(folder, followlinks=True):
        subfolders.sort()
        below = os.path.relpath(directory, folder)
        prefix = "" if below == "." else below.replace(os.sep, "/") + "/"
        found.update({prefix + name: Path(directory, name) for name in sorted(names) if not name.startswith(".")})
    return found


def _index(folder: Path, pattern: str, what: str, problems: list[str]) -> dict[str, Path]:
    """Stem -> image file below ``folder``, for those whose path fits the pattern."""
    if not folder.is_dir():
        problems.append(f"{what}: no such folder: {folder}")
        return {}
    with_suffix = Path(pattern).suffix.lower() in IMAGE_SUFFIXES
    before, _, after = pattern.partition(_STEM)
    shape = re.compile(re.escape(before) + "(?P<stem>.+)" + re.escape(after))
    found: dict[str, Path] = {}
    images = {name: path for name, path in _files_below(folder).items() if path.suffix.lower() in IMAGE_SUFFIXES}
    for name, path in images.items():
        fit = shape.fullmatch(name if with_suffix else name.removesuffix(path.suffix))
        if fit is None:
            continue
        if fit["stem"] in found:
            problems.append(f"{what}: {found[fit['stem']]} and {path} have the same stem; keep one")
        found[fit["stem"]] = path
    if not images:
        problems.append(f"{what}: no image (of {', '.join(sorted(IMAGE_SUFFIXES))}) below {folder}")
    elif not found:
        example = next(iter(images))
        problems.append(f"{what}: none of the {len(images)} images below {folder} is named {pattern}, e.g. {example}")
    return found


def _split_stems(split: Path, problems: list[str]) -> list[str]:
    """Stems listed in a split file, one per line, each once; blank lines are skipped."""
    try:
        stems = [line.strip() for line in split.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"the split file {split} cannot be read: {error}")
        return []
    unique = list(dict.fromkeys(stems))
    if not stems:
        problems.append(f"the split file {split} lists nothing")
    if len(unique) < len(stems):
        twice = [stem for stem, count in Counter(stems).items() if count > 1]
        problems.append(f"the split file {split} lists {', '.join(twice[:5])} more than once")
    return unique


def _report_missing(stems: Sequence[str], found: Collection[str], what: str, folder: Path, problems: list[str]) -> None:
    missing = [stem for stem in stems if stem not in found]
    if missing:
        close = difflib.get_close_matches(missing[0], list(found)[:2000], n=1, cutoff=0.8)
        hint = f" (a close name there: {close[0]})" if close else ""
        listed = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        problems.append(f"{what}: {len(missing)} of {len(stems)} have no file below {folder}: {listed}{hint}")
