"""Which folder has the images and which the labels, and what their names share."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from pathlib import Path
from typing import Any

from domainbridge.data.folder import FolderRule, list_folder
from domainbridge.data.name_pattern import STEM
from domainbridge.data.pairing import shared_ends
from domainbridge.data.split_file import normalized
from domainbridge.data.walk import LABEL_SUFFIXES, suffix_of
from domainbridge.tools.init.clusters import Cluster, evenly, is_other

__all__ = ["FoundFolders", "find_images", "find_pairs"]

_COMPARED = 2000


@dataclass(frozen=True)
class FoundFolders:
    """Images, with or without labels, as the keys of a recipe say them.

    Attributes:
        images: folder of images, relative to the root.
        labels: folder of labels; None without labels.
        image_pattern: of the images' names.
        label_pattern: of the labels' names.
        count: images, with labels where there are labels.
        evidence: what was seen, in words.
    """

    images: str
    labels: str | None
    image_pattern: str
    label_pattern: str
    count: int
    evidence: str

    def rule(self, split: Path | None = None) -> FolderRule:
        """The same as a listing's rule."""
        return FolderRule(split, self.image_pattern, self.label_pattern)


@dataclass(frozen=True)
class _Side:
    """Files below a folder with names that fit a pattern."""

    folder: str
    pattern: str
    stems: frozenset[str]


def find_images(root: Path, clusters: Sequence[Cluster]) -> FoundFolders | None:
    """The folder that contains all photographs below the root."""
    photos = [cluster for cluster in clusters if not cluster.is_mask]
    if not photos:
        return None
    parts = [cluster.folder.split("/") if cluster.folder else [] for cluster in photos]
    folder = "/".join(_common(parts))
    masks_there = any(cluster.is_mask and _is_below(cluster.folder, folder) for cluster in clusters)
    counts: Counter[str] = Counter()
    for cluster in photos:
        counts[cluster.suffix] += len(cluster.names)
    suffixes = [suffix for suffix, _ in counts.most_common()]
    pattern = f"{STEM}{suffixes[0]}" if masks_there or (len(suffixes) > 1 and _has_twins(photos)) else STEM
    chosen_folders = FoundFolders(folder or ".", None, pattern, STEM, 0, "")
    count = len(list_folder(root / chosen_folders.images, None, chosen_folders.rule()).images)
    evidence = f"{count} images ({', '.join(suffixes)}), {photos[0].evidence}"
    return FoundFolders(chosen_folders.images, None, pattern, STEM, count, evidence)


def find_pairs(root: Path, clusters: Sequence[Cluster]) -> FoundFolders | None:
    """The folders of photographs and masks whose names agree in the most files; None if no name agrees."""
    photos = list(_sides(cluster for cluster in clusters if not cluster.is_mask))
    masks = list(_sides(cluster for cluster in clusters if cluster.is_mask and not is_other(cluster)))
    masks = masks or list(_sides(cluster for cluster in clusters if cluster.is_mask))
    best: tuple[tuple[int, int, int, int], _Side, _Side] | None = None
    for photo in photos:
        for mask in masks:
            shared = len(photo.stems & mask.stems)
            unpaired = len(photo.stems) + len(mask.stems) - 2 * shared
            depth = photo.folder.count("/") + mask.folder.count("/")
            score = (shared, -unpaired, -len(photo.pattern) - len(mask.pattern), -depth)
            if shared and (best is None or score > best[0]):
                best = score, photo, mask
    if best is None:
        return None
    _, photo, mask = best
    images, labels = photo.folder or ".", mask.folder or "."
    chosen_folders = FoundFolders(images, labels, photo.pattern, mask.pattern, 0, "")
    listing = list_folder(root / images, root / labels, chosen_folders.rule())
    if listing.problems and not listing.images:
        return None
    of_masks = (cluster for cluster in clusters if cluster.is_mask and _is_below(cluster.folder, mask.folder))
    evidence = f"{len(listing.images)} images with a mask of the same name; masks: {next(of_masks).evidence}"
    chosen_folders = FoundFolders(images, labels, photo.pattern, mask.pattern, len(listing.images), evidence)
    shorter = replace(chosen_folders, image_pattern=_bare(photo.pattern), label_pattern=_bare(mask.pattern))
    same = list_folder(root / images, root / labels, shorter.rule())
    return shorter if same.images == listing.images and same.problems == listing.problems else chosen_folders


def _bare(pattern: str) -> str:
    """A pattern without its suffix."""
    return pattern.removesuffix(suffix_of(pattern)) if suffix_of(pattern) in LABEL_SUFFIXES else pattern


def _sides(clusters: Iterable[Cluster]) -> Iterator[_Side]:
    """Every folder above the files, with every pattern that their names suggest."""
    chosen = list(clusters)
    folders = dict.fromkeys(above for cluster in chosen for above in _above(cluster.folder))
    for folder in folders:
        below = [cluster for cluster in chosen if _is_below(cluster.folder, folder)]
        for suffix, ending in dict.fromkeys((cluster.suffix, cluster.ending) for cluster in below):
            names = [n for c in below if (c.suffix, c.ending) == (suffix, ending) for n in c.names]
            yield from _patterns(folder, suffix, names)
        if len({(cluster.suffix, cluster.ending) for cluster in below}) > 1:
            yield _side(folder, STEM, [name for cluster in below for name in cluster.names])


def _patterns(folder: str, suffix: str, names: Sequence[str]) -> Iterator[_Side]:
    """Names without anything around the stem, and without the beginning or end that all of them share."""
    stems = [_relative(name, folder).rpartition(".")[0] for name in names]
    start, end = (shared_ends(stems)[0], shared_ends(stems, ends_only=True)[1]) if len(stems) > 1 else ("", "")
    for before, after in dict.fromkeys((("", ""), ("", end), (start, ""), (start, end))):
        yield _side(folder, f"{before}{STEM}{after}{suffix if len(names) else ''}", names)


def _common(sequences: Sequence[Any]) -> Any:
    """The common beginning of texts, or of lists; character by character, as is meant here."""
    return commonprefix(sequences)  # noqa: RUF071


def _side(folder: str, pattern: str, names: Sequence[str]) -> _Side:
    before, _, after = pattern.partition(STEM)
    with_suffix = after and any(after.lower().endswith(suffix) for suffix in LABEL_SUFFIXES)
    stems = set()
    for name in evenly(names, _COMPARED):
        relative = normalized(_relative(name, folder))
        text = relative if with_suffix else relative.rpartition(".")[0]
        ending = after.lower() if with_suffix else after
        fits = text.startswith(before) and (text.lower() if with_suffix else text).endswith(ending)
        if fits and len(text) > len(before) + len(after):
            stems.add(text[len(before) : len(text) - len(after)])
    return _Side(folder, pattern, frozenset(stems))


def _above(folder: str) -> list[str]:
    """A folder and all folders above it, the deepest first."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:count]) for count in range(len(parts), -1, -1)]


def _is_below(folder: str, above: str) -> bool:
    return not above or folder == above or folder.startswith(f"{above}/")


def _relative(name: str, folder: str) -> str:
    return name[len(folder) + 1 :] if folder else name


def _has_twins(clusters: Sequence[Cluster]) -> bool:
    """Whether two photographs differ in their suffix only."""
    bodies = [name.rpartition(".")[0] for cluster in clusters for name in cluster.names]
    return len(set(bodies)) < len(bodies)
