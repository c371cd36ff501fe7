"""Which images ``predict`` segments, and under which names the results are written."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from domainbridge.data.folder import FolderRule, list_folder
from domainbridge.data.walk import IMAGE_SUFFIXES, files_below, suffix_of
from domainbridge.errors import DataError, problem_list
from domainbridge.tools.own_outputs import OwnOutputs, is_own_output

__all__ = ["Inputs", "collect_inputs", "output_path"]

_EXAMPLES = 3


@dataclass
class Inputs:
    """What is segmented.

    Attributes:
        pairs: image, and the path of its results without their endings.
        notes: remarks for the user, each a sentence.
    """

    pairs: list[tuple[Path, Path]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def collect_inputs(inputs: Sequence[Path], out: Path, endings: Sequence[str]) -> Inputs:
    """Every given file, and every image below every given folder.

    Images whose results would have one name get distinct names. Files that an earlier ``predict`` wrote into a given
    folder are left out.

    Args:
        inputs: files and folders.
        out: folder of the results.
        endings: of the files that each image leads to.

    Raises:
        DataError: lists all inputs that are missing or no images, and all existing files that would be replaced
            although ``predict`` did not write them.
    """
    problems: list[str] = []
    chosen = Inputs()
    images: dict[str, tuple[Path, PurePosixPath]] = {}
    for path, name in _expanded(inputs, problems, chosen.notes):
        images.setdefault(os.path.abspath(path), (path, PurePosixPath(name)))  # noqa: PTH100 - links are not followed
    if not problems and not images:
        problems.append(f"{', '.join(map(str, inputs))}: no image is left to segment")
    names = _distinct([*images.values()], endings, chosen.notes)
    chosen.pairs = [(path, out / name) for (path, _), name in zip(images.values(), names, strict=True)]
    _check_outputs(chosen.pairs, out, endings, problems)
    if problems:
        notes = [f"note: {note}" for note in chosen.notes]
        raise DataError("\n".join([problem_list("predict: nothing was written", problems, limit=100), *notes]))
    return chosen


def output_path(target: Path, ending: str) -> Path:
    """The path of a result."""
    return target.with_name(target.name + ending)


def _expanded(inputs: Sequence[Path], problems: list[str], notes: list[str]) -> Iterator[tuple[Path, str]]:
    """(image, name of its result relative to the folder of results, with the image's ending)."""
    for path in inputs:
        if path.is_dir():
            yield from ((image, image.relative_to(path).as_posix()) for image in _below(path, problems, notes))
        elif not path.exists():
            problems.append(f"{path}: no such file or folder")
        elif not path.is_file():
            problems.append(f"{path}: neither a file nor a folder")
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            problems.append(f"{path}: not an image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        else:
            yield path, path.name


def _below(folder: Path, problems: list[str], notes: list[str]) -> list[Path]:
    """The images of a folder, without hidden ones and without results of earlier commands."""
    listing = list_folder(folder, None, FolderRule())
    notes += listing.notes
    if not listing.images:
        problems += listing.problems
        return []
    # A listing has one image per stem; two images with one stem are no problem here.
    chosen = [folder / name for name in files_below(folder).names if suffix_of(name) in IMAGE_SUFFIXES]
    records: dict[Path, OwnOutputs] = {}
    earlier = {image for image in chosen if is_own_output(image, folder, records)}
    if earlier:
        notes.append(
            f"{len(earlier)} images below {folder} are left out, because an earlier `predict` wrote them, "
            f"e.g. {min(earlier)}"
        )
    return [image for image in chosen if image not in earlier]


Naming = Callable[[Path, PurePosixPath], PurePosixPath]
_NAMINGS: tuple[Naming, ...] = (
    lambda path, name: name.with_suffix(""),
    lambda path, name: name.with_name(f"{name.stem}_{name.suffix[1:]}"),
    lambda path, name: name.with_name(f"{path.absolute().parent.name}_{name.stem}"),
    lambda path, name: name.with_name(f"{path.absolute().parent.name}_{name.stem}_{name.suffix[1:]}"),
)
"""Names of a result, from the plainest to the longest: by stem, with the ending, with the folder, with both."""


def _distinct(
    images: Sequence[tuple[Path, PurePosixPath]], endings: Sequence[str], notes: list[str]
) -> list[PurePosixPath]:
    """A name per image, so that no two of their files have one path; the plainest that is distinct."""
    levels = [0] * len(images)
    for _ in _NAMINGS[1:]:
        names = [_NAMINGS[level](*image) for level, image in zip(levels, images, strict=True)]
        clashing = _clashing(names, endings)
        if not clashing:
            break
        for number in clashing:
            levels[number] = min(levels[number] + 1, len(_NAMINGS) - 1)
    names = [_NAMINGS[level](*image) for level, image in zip(levels, images, strict=True)]
    while clashing := _clashing(names, endings):
        for number in clashing:
            names[number] = names[number].with_name(f"{names[number].name}_{number + 1}")
    renamed = [
        number for number, (image, name) in enumerate(zip(images, names, strict=True)) if name != _NAMINGS[0](*image)
    ]
    if renamed:
        shown = ", ".join(f"{images[number][0]} as {names[number]}.png" for number in renamed[:_EXAMPLES])
        more = f" and {len(renamed) - _EXAMPLES} more" if len(renamed) > _EXAMPLES else ""
        notes.append(f"images whose results would have the same name are written under distinct names: {shown}{more}")
    return names


def _clashing(names: Sequence[PurePosixPath], endings: Sequence[str]) -> set[int]:
    """Positions of names of which a file has the path of another name's file, or of a folder that is needed."""
    writers: dict[str, set[int]] = {}
    for number, name in enumerate(names):
        for ending in endings:
            writers.setdefault(f"{name}{ending}", set()).add(number)
    clashing = {number for numbers in writers.values() if len(numbers) > 1 for number in numbers}
    folders = {str(parent) for name in names for parent in name.parents}
    return clashing | {number for path in folders & writers.keys() for number in writers[path]}


def _check_outputs(pairs: Sequence[tuple[Path, Path]], out: Path, endings: Sequence[str], problems: list[str]) -> None:
    """Find every file that must not be replaced; only unchanged files of an earlier ``predict`` may be."""
    images = {path.resolve() for path, _ in pairs}
    earlier = OwnOutputs(out)
    blocked: set[Path] = set()
    for path, target in pairs:
        for parent in target.parents:
            if parent == out or parent in blocked:
                break
            if os.path.lexists(parent) and not parent.is_dir():
                blocked.add(parent)
                problems.append(f"{path}: its result needs the folder {parent}, which is a file; choose another --out")
        for ending in endings:
            output = output_path(target, ending)
            if not os.path.lexists(output) or any(parent in blocked for parent in output.parents):
                continue
            if output.resolve() in images:
                problems.append(f"{path}: its result would overwrite the input {output}; choose another --out")
            elif not earlier.holds(output):
                problems.append(
                    f"{output}: exists, and predict did not write it, or it was changed since; choose another --out "
                    "or move the file"
                )
