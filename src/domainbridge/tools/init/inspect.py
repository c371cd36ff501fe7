"""What a folder holds, as a domain of a recipe: images, labels, split file, classes, unusual files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from domainbridge.data.annotations.find import Found, find_annotations
from domainbridge.data.folder import Listing, list_folder
from domainbridge.data.headers import Header, read_header
from domainbridge.data.index_image import label_size
from domainbridge.data.walk import LABEL_SUFFIXES, files_below, suffix_of
from domainbridge.errors import DataError
from domainbridge.tools.init.classes import FoundClasses, find_classes
from domainbridge.tools.init.clusters import Cluster, clusters_of, evenly
from domainbridge.tools.init.pairs import FoundFolders, find_images, find_pairs

__all__ = ["FoundDomain", "Row", "find_domain"]

_HEADERS = 20
_FOLDERS = 4
_WITH_NAMES = ("labelme", "coco", "coco-panoptic", "coco-stuff", "yolo", "cvat", "supervisely", "label-studio")
"""Annotation formats whose files name the classes."""
_IN_PARTS = ("channels", "class-masks")
_ANNOTATION_FILES = (".json", ".xml")
_ANNOTATION_SUFFIXES = (*_ANNOTATION_FILES, ".txt", ".png", ".npy", ".tif")
_MAX_TRIED = 60
"""Places that are searched for annotations."""
_SPLIT_SUFFIXES = frozenset({".txt", ".lst", ".list", ".csv", ".tsv"})
_MAX_BYTES = 20_000_000
_MAX_FILES = 40
"""Text files that may be split files."""
Row = tuple[str, str, str]
"""What, what was found, the evidence."""


@dataclass(frozen=True)
class FoundDomain:
    """A folder as a domain.

    Attributes:
        root: absolute path.
        folders: of images and labels.
        split: the split file that is used, relative to the root.
        annotations: annotation file or folder in place of a folder of masks, relative to the root.
        classes: of the labels; None for an unlabeled domain and for annotations.
        categories: of annotations, in their order.
        keys: further keys of the recipe, e.g. ``percentiles: [2, 98]``.
        size: (width, height) of the middle image.
        rows: of the table that tells the user what was understood.
    """

    root: Path
    folders: FoundFolders
    split: str | None
    annotations: str | None
    classes: FoundClasses | None
    categories: tuple[str, ...]
    keys: dict[str, str]
    size: tuple[int, int]
    rows: tuple[Row, ...] = field(default=())


@dataclass(frozen=True)
class _Split:
    """A split file.

    Attributes:
        path: relative to the root.
        count: images that the file lists.
    """

    path: str
    count: int

    def is_for(self, *texts: str) -> bool:
        """Whether one of the words is in the file's name."""
        name = self.path.rpartition("/")[2].lower()
        return any(word in name for word in texts)


def find_domain(
    folder: Path, role: Literal["source", "target", "validation"], splits: tuple[str, ...] = ()
) -> FoundDomain:
    """Look at a folder.

    Args:
        folder: of a data set.
        role: a source and a validation set need labels.
        splits: words in the names of split files, the best first; a split file with another name is not used.

    Raises:
        DataError: no images, or no labels for them.
    """
    root = folder.expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"--{role} {folder}: no such folder")
    names = files_below(root).names
    clusters = clusters_of(root, names)
    images = find_images(root, clusters)
    if images is None:
        kinds = sorted({suffix_of(name) or "without suffix" for name in names})
        raise DataError(f"--{role} {folder}: no images found; found {', '.join(kinds[:12]) or 'nothing'}")
    rows: list[Row] = []
    annotations: str | None = None
    categories: tuple[str, ...] = ()
    classes: FoundClasses | None = None
    folders = images
    if role != "target":
        pairs = find_pairs(root, clusters)
        annotation = _annotations_below(root, names)
        if annotation is not None and (pairs is None or _explains_more(annotation, pairs)):
            place = annotation.path.relative_to(root).as_posix() if annotation.path != root else "."
            annotations, categories = place, annotation.categories
            rows.append((f"{role} labels", f"{place}, format {annotation.format}", annotation.evidence))
            rows.append((f"{role} classes", ", ".join(categories), "categories of the annotations"))
        elif pairs is not None:
            folders = pairs
            rows.append((f"{role} labels", f"{pairs.labels}, {pairs.label_pattern}", pairs.evidence))
        else:
            raise DataError(f"--{role} {folder}: no labels found for the {images.count} images; {_seen(names)}")
    rows.insert(0, (f"{role} images", f"{folders.images}, {folders.image_pattern}", images.evidence))
    split = _choose_split(_find_splits(root, names, folders), splits)
    if split is not None:
        rows.append((f"{role} split", split.path, f"lists {split.count} images"))
    listing = _listing(root, folders, split)
    if folders.labels is not None:
        labels = listing.labels or ()
        beside = [f"../{path.name}" for path in root.parent.iterdir() if path.is_file()]
        classes = find_classes(root, [*names, *beside], labels)
        rows.append((f"{role} values", f"{len(classes.classes)} classes", classes.evidence))
    rows += _unused(role, clusters, _listing(root, folders, None), root)
    headers = [read_header(path) for path in evenly(listing.images, _HEADERS)]
    if not headers:
        raise DataError(f"--{role} {folder}: no image can be used: {'; '.join(listing.problems)}")
    keys = _unusual(headers, listing, rows, role)
    middle = sorted(header.size()[::-1] for header in headers)[len(headers) // 2]
    return FoundDomain(
        root, folders, split.path if split else None, annotations, classes, categories, keys, middle, tuple(rows)
    )


def _annotations_below(root: Path, names: Sequence[str]) -> Found | None:
    """The annotation of the most images, in the folder itself, a folder below, or a file."""
    folders = dict.fromkeys(
        folder
        for name in names
        if suffix_of(name) in _ANNOTATION_SUFFIXES
        for folder in (name.rpartition("/")[0], name.rpartition("/")[0].rpartition("/")[0])
    )
    files = [name for name in names if suffix_of(name) in _ANNOTATION_FILES]
    candidates = sorted(dict.fromkeys(["", *folders, *files]), key=lambda name: (name.count("/"), name))
    best: Found | None = None
    for name in candidates[:_MAX_TRIED]:
        try:
            annotation = find_annotations(root / name if name else root)
        except DataError:  # damaged, or several annotations in one folder: its files are tried one by one
            continue
        if annotation is not None and (best is None or annotation.num_images > best.num_images):
            best = annotation
    return best


def _explains_more(annotation: Found, pairs: FoundFolders) -> bool:
    """Whether an annotation is to be read rather than the masks that fit its images.

    Its files name the classes, or the masks are parts of it: one per class, or in the channels of an array.
    """
    in_parts = annotation.format in _IN_PARTS and len(annotation.categories) > 1
    return (annotation.format in _WITH_NAMES or in_parts) and annotation.num_images >= pairs.count


def _unused(role: str, clusters: Sequence[Cluster], listing: Listing, root: Path) -> list[Row]:
    """A row about folders of image files that the recipe does not read, if there are some."""
    used = {path.relative_to(root).as_posix() for path in (*listing.images, *(listing.labels or ()))}
    counts = {
        cluster.folder or ".": f"{len(cluster.names)} {'masks' if cluster.is_mask else 'images'}"
        for cluster in clusters
        if not used.intersection(cluster.names)
    }
    if not counts or (role == "target" and all("masks" in count for count in counts.values())):
        return []
    more = f" and {len(counts) - _FOLDERS} more folders" if len(counts) > _FOLDERS else ""
    listed = ", ".join(f"{folder} ({count})" for folder, count in [*counts.items()][:_FOLDERS])
    return [(f"{role} not used", f"{listed}{more}", "image files in folders that the recipe does not name")]


def _listing(root: Path, folders: FoundFolders, split: _Split | None) -> Listing:
    labels = root / folders.labels if folders.labels is not None else None
    return list_folder(root / folders.images, labels, folders.rule(root / split.path if split else None))


def _find_splits(root: Path, names: Sequence[str], images: FoundFolders) -> list[_Split]:
    """Split files below the root of which every line names an image; shortest paths first."""
    candidates = [name for name in names if suffix_of(name) in _SPLIT_SUFFIXES]
    splits = []
    for name in sorted(candidates, key=lambda name: (name.count("/"), name))[:_MAX_FILES]:
        path = root / name
        if path.stat().st_size > _MAX_BYTES:
            continue
        listing = list_folder(root / images.images, None, images.rule(path))
        if listing.images and not listing.problems:
            splits.append(_Split(name, len(listing.images)))
    return splits


def _choose_split(splits: Sequence[_Split], preferred: tuple[str, ...]) -> _Split | None:
    return next((split for word in preferred for split in splits if split.is_for(word)), None)


def _seen(names: Sequence[str]) -> str:
    """The other files, for a message."""
    kinds = sorted({suffix_of(name) for name in names if suffix_of(name) not in LABEL_SUFFIXES})
    return f"other files: {', '.join(kind or 'without suffix' for kind in kinds) or 'none'}"


def _unusual(headers: Sequence[Header], listing: Listing, rows: list[Row], role: str) -> dict[str, str]:
    """Keys for deep or multi-band images, turned images and labels of another size; a row for each."""
    keys: dict[str, str] = {}
    deep = next((header for header in headers if header.dtype != "uint8"), None)
    many = next((header for header in headers if _has_other_bands(header)), None)
    if many is not None:
        keys["bands"] = "[1, 2, 3]" if many.bands >= 3 else "[1]"
        rows.append((f"{role} bands", keys["bands"], f"{many}; change the key if red, green and blue are others"))
    if deep is not None:
        keys["percentiles"] = "[2, 98]"
        rows.append((f"{role} values of images", "percentiles: [2, 98]", f"{deep}; or scale: [low, high]"))
    if listing.labels and headers:
        try:
            label, header = label_size(listing.labels[0]), read_header(listing.images[0])
        except DataError:
            return keys
        if label != header.size() and label == header.size(upright=False):
            keys["exif"] = "raw"
            rows.append((f"{role} orientation", "exif: raw", "labels are not turned as EXIF data turn the images"))
        elif label != header.size():
            keys["label_resize"] = "true"
            rows.append(
                (
                    f"{role} label size",
                    "label_resize: true",
                    f"{label[1]}x{label[0]} for {header.width}x{header.height}",
                )
            )
    return keys


def _has_other_bands(header: Header) -> bool:
    """Whether a recipe must say which bands are red, green and blue; a declared alpha of a TIFF may be infrared."""
    return header.bands - header.alpha not in (1, 3) or (header.format == "TIFF" and header.bands == 4)
