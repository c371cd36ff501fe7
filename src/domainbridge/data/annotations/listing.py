"""Images of a domain whose labels are annotations."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from domainbridge.data.annotations.base import FORMATS, Entry, Index
from domainbridge.data.annotations.reading import natural_order
from domainbridge.data.folder import FolderRule, Listing, list_folder
from domainbridge.data.name_pattern import STEM
from domainbridge.data.storage.virtual import is_set_path, real_files, set_path

__all__ = ["list_annotations"]


def list_annotations(images: Path, annotation_format: str, root: Path, rule: FolderRule) -> Listing:
    """The images below a folder that an annotation is about, with their labels.

    Images without annotation and annotations without image are left out; notes count and name them.

    Args:
        images: folder of images.
        annotation_format: name of a format.
        root: file or folder of the annotation.
        rule: split, patterns and excluded images. ``label_pattern`` counts where a label is a file named as its image.

    Raises:
        DataError: the annotation is damaged.
    """
    index = FORMATS[annotation_format].index(root)
    listed = list_folder(images, None, rule)
    problems, notes = [*listed.problems, *index.problems], [*listed.notes, *index.notes]
    title = FORMATS[annotation_format].title
    if not index.entries and not index.problems:
        problems.append(f"labels: no annotated image in {root} ({title})")
    matched, unmatched = _matched(images, listed.images, _in_pattern(index, root, rule.label_pattern), problems)
    notes.insert(
        0, f"labels are read as {title} from {root}: {len(index.entries)} images, {len(index.categories)} categories"
    )
    if index.by_order and listed.images:
        matched, unmatched = _by_order(listed.images, index, problems, notes)
    chosen = [image for image in listed.images if image in matched]
    left = [image for image in listed.images if image not in matched]
    if left and index.entries and not problems:
        if not chosen:
            problems.append(
                f"none of the {len(left)} images below {images} is named in {root}, e.g. image {left[0].name}, "
                f"annotation {index.entries[0].images[0]}"
            )
        else:
            notes.append(f"images without annotation, left out: {len(left)} of {len(listed.images)}, e.g. {left[0]}")
    if unmatched and chosen and rule.split is None and not rule.exclude_files:
        notes.append(
            f"annotations without image, left out: {len(unmatched)} of {len(index.entries)}, e.g. {unmatched[0]}"
        )
    labels = []
    for image in chosen:
        label = matched[image].label
        files = real_files(label) if is_set_path(str(label)) else (label,)
        parts = [*index.companions, *files, *([image] if index.needs_image else [])]
        try:
            labels.append(set_path(parts))
        except ValueError as error:
            problems.append(f"labels: {error}; rename the files")
            labels.append(label)
    return Listing(tuple(chosen), tuple(labels), tuple(problems), tuple(notes))


def _in_pattern(index: Index, root: Path, pattern: str) -> Index:
    """Entries whose label fits ``label_pattern``, with the stem as the image's name."""
    if pattern == STEM or not root.is_dir():
        return index
    before, _, after = pattern.partition(STEM)
    expression = re.compile(re.escape(before) + "(?P<stem>.+)" + re.escape(after), re.DOTALL)
    entries = []
    for entry in index.entries:
        name = entry.label.relative_to(root).as_posix()
        match = expression.fullmatch(name) or expression.fullmatch(name.rpartition(".")[0])
        if match is not None:
            entries.append(replace(entry, images=(match["stem"],)))
    return replace(index, entries=tuple(entries))


def _matched(
    folder: Path, images: Sequence[Path], index: Index, problems: list[str]
) -> tuple[dict[Path, Entry], list[str]]:
    """Image -> its entry, and names of entries without image.

    A name fits an image whose path ends with it, with or without the ending; folders before it may be missing on
    either side. The longest common part decides.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        for key in _keys(image.as_posix().removeprefix(folder.as_posix()).lstrip("/")):
            by_name[key].append(image)
    matched: dict[Path, Entry] = {}
    unmatched, twice, ambiguous = [], [], []
    for entry in index.entries:
        fitting = next((fits for name in entry.images for key in _keys(name) if (fits := by_name.get(key))), [])
        if not fitting:
            unmatched.append(entry.images[0])
        elif len(fitting) > 1:
            ambiguous.append(f"{entry.images[0]} ({fitting[0]}, {fitting[1]})")
        elif fitting[0] in matched:
            twice.append(f"{fitting[0]}")
        else:
            matched[fitting[0]] = entry
    if ambiguous:
        problems.append(
            f"annotations that fit several images: {len(ambiguous)}, e.g. {ambiguous[0]}; add their folders"
        )
    if twice:
        problems.append(f"images with more than one annotation: {len(twice)}, e.g. {twice[0]}; keep one")
    return matched, unmatched


def _keys(name: str) -> list[str]:
    """Ends of a path, the longest first: with its ending, then without it."""
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    stems = [end.rpartition(".")[0] for end in ends if "." in end.rpartition("/")[2].lstrip(".")]
    return list(dict.fromkeys([*ends, *stems]))


def _by_order(
    images: Sequence[Path], index: Index, problems: list[str], notes: list[str]
) -> tuple[dict[Path, Entry], list[str]]:
    """Images and entries in natural order of their names, if their numbers are equal."""
    if len(images) != len(index.entries):
        problems.append(
            f"the names of the labels say no image, and {len(images)} images have {len(index.entries)} labels; "
            "put the JSON export of the same project beside them, or rename the masks to IMAGE_CLASS.png"
        )
        return {}, []
    ordered = sorted(images, key=lambda image: natural_order(image.as_posix()))
    notes.append(
        "the names of the labels say no image: both were paired in the order of their names, e.g. "
        f"{index.entries[0].images[0]} with {ordered[0].name}; look at them, or put the JSON export beside them"
    )
    return dict(zip(ordered, index.entries, strict=True)), []
