"""Which images and videos ``predict`` segments, and under which names the results are written."""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Literal

from domainbridge.data.folder import FolderRule, list_folder
from domainbridge.data.raster import is_georeferenced
from domainbridge.data.split_file import read_split
from domainbridge.data.walk import IMAGE_SUFFIXES, files_below, suffix_of
from domainbridge.errors import DataError, problem_list
from domainbridge.tools.own_outputs import OwnOutputs, is_own_output

__all__ = ["LIST_SUFFIXES", "VIDEO_SUFFIXES", "Input", "Inputs", "Kind", "collect_inputs", "output_path"]

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".3gp", ".ogv"}
)
LIST_SUFFIXES = frozenset({".txt", ".lst", ".csv"})
_TIFF = frozenset({".tif", ".tiff"})
_EXAMPLES = 3

Kind = Literal["image", "map", "video"]
"""``map``: a georeferenced image, whose results are georeferenced too."""


@dataclass(frozen=True)
class Input:
    """A file to segment.

    Attributes:
        path: of the image or video.
        target: path of its results without their endings.
        kind: which results there are.
    """

    path: Path
    target: Path
    kind: Kind = "image"


EndingsOf = Callable[[Kind], Sequence[str]]
"""The endings of the files that an input of a kind leads to; an ending with / is a folder's."""


@dataclass
class Inputs:
    """What is segmented.

    Attributes:
        items: files with the names of their results.
        notes: remarks for the user, each a sentence.
        missing: files that a list names and that do not exist, each with a sentence.
    """

    items: list[Input] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: dict[Path, str] = field(default_factory=dict)


def collect_inputs(
    inputs: Sequence[Path],
    out: Path,
    endings_of: EndingsOf,
    common: Sequence[str] = (),
    done: Callable[[Input], bool] = lambda _: False,
) -> Inputs:
    """Every given file, every image and video below every given folder, every file that a pattern or a list names.

    Images whose results would have one name get distinct names. Files that an earlier ``predict`` wrote into a given
    folder are left out.

    Args:
        inputs: files, folders, patterns such as ``photos/**/*.jpg``, and lists (.txt, .lst, .csv) of files and folders.
        out: folder of the results.
        endings_of: see there.
        common: names of files in ``out`` about all inputs.
        done: whether an input has its results already, so that none of them is written.

    Raises:
        DataError: lists all inputs that are missing or no images, and all existing files that would be replaced
            although ``predict`` did not write them.
    """
    problems: list[str] = []
    chosen = Inputs()
    images: dict[str, tuple[Path, PurePosixPath]] = {}
    for path, name in _expanded(inputs, problems, chosen):
        images.setdefault(os.path.abspath(path), (path, PurePosixPath(name)))  # noqa: PTH100 - links are not followed
    if not problems and not images:
        problems.append(f"{', '.join(map(str, inputs))}: no image is left to segment")
    kinds = [_kind(path) for path, _ in images.values()]
    names = _distinct([*images.values()], [endings_of(kind) for kind in kinds], common, chosen.notes)
    chosen.items = [
        Input(path, out / name, kind) for (path, _), name, kind in zip(images.values(), names, kinds, strict=True)
    ]
    _check_outputs([item for item in chosen.items if not done(item)], out, endings_of, common, problems)
    if problems:
        notes = [f"note: {note}" for note in chosen.notes]
        raise DataError("\n".join([problem_list("predict: nothing was written", problems, limit=100), *notes]))
    return chosen


def output_path(target: Path, ending: str) -> Path:
    """The path of a result."""
    return target.with_name(target.name + ending)


def _kind(path: Path) -> Kind:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "map" if suffix in _TIFF and is_georeferenced(path) else "image"


def _expanded(inputs: Sequence[Path], problems: list[str], chosen: Inputs) -> Iterator[tuple[Path, str]]:
    """(image, name of its result relative to the folder of results, with the image's ending)."""
    for path in inputs:
        suffix = path.suffix.lower()
        if path.is_dir():
            yield from ((image, image.relative_to(path).as_posix()) for image in _below(path, problems, chosen.notes))
        elif not path.exists() and glob.has_magic(str(path)):
            yield from _matching(str(path), problems, chosen)
        elif not path.exists():
            problems.append(f"{path}: no such file or folder")
        elif not path.is_file():
            problems.append(f"{path}: neither a file nor a folder")
        elif suffix in LIST_SUFFIXES:
            yield from _listed(path, problems, chosen)
        elif suffix not in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
            problems.append(f"{path}: not an image, a video ({known}) or a list ({', '.join(sorted(LIST_SUFFIXES))})")
        else:
            yield path, path.name


def _matching(pattern: str, problems: list[str], chosen: Inputs) -> Iterator[tuple[Path, str]]:
    """Images and videos that a pattern fits; their structure below its first wildcard is kept."""
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parent.parts))
    media = [Path(name) for name in matches if suffix_of(name) in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
    media = [path for path in media if path.is_file()]
    if not media:
        problems.append(f"{pattern}: no image or video fits this pattern ({len(matches)} other files and folders do)")
        return
    if others := sum(Path(name).is_file() for name in matches) - len(media):
        chosen.notes.append(f"{others} files that fit {pattern} are neither images nor videos and are left out")
    for path in _without_earlier(media, fixed, chosen.notes):
        yield path, path.relative_to(fixed).as_posix()


def _listed(path: Path, problems: list[str], chosen: Inputs) -> Iterator[tuple[Path, str]]:
    """The files of a list: relative to the list's folder or to the current one. Missing ones do not stop the others."""
    listed = read_split(path)
    chosen.notes += listed.notes
    count, missing = 0, {}
    for readings in listed.entries:
        places = [place for text in readings for place in (path.parent / text, Path(text))]
        place = next((place for place in places if place.is_file() or place.is_dir()), None)
        if place is None:
            missing[Path(readings[0])] = f"{readings[0]}: named in {path}, but there is no such file"
            continue
        count += 1
        if place.is_dir():
            yield from ((each, each.relative_to(place).as_posix()) for each in _below(place, problems, chosen.notes))
        elif place.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            yield place, place.name
        else:
            missing[place] = f"{place}: named in {path}, but neither an image nor a video"
    if not count:
        example = f", e.g. {listed.entries[0][0]!r}" if listed.entries else ""
        problems.append(f"{path}: not an image, and as a list it names no file that exists{example}")
    else:
        chosen.missing |= missing


def _below(folder: Path, problems: list[str], notes: list[str]) -> list[Path]:
    """The images and videos of a folder, without hidden ones and without results of earlier commands."""
    listing = list_folder(folder, None, FolderRule(elsewhere=VIDEO_SUFFIXES))
    try:
        names = files_below(folder).names
    except DataError:
        names = []  # the listing says so
    videos = [folder / name for name in names if suffix_of(name) in VIDEO_SUFFIXES]
    notes += listing.notes
    if not listing.images and not videos:
        problems += listing.problems
        return []
    # A listing has one image per stem; two images with one stem are no problem here.
    chosen = [folder / name for name in names if suffix_of(name) in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
    return _without_earlier(chosen, folder, notes)


def _without_earlier(chosen: list[Path], folder: Path, notes: list[str]) -> list[Path]:
    """The files that no earlier ``predict`` wrote."""
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
    images: Sequence[tuple[Path, PurePosixPath]],
    endings: Sequence[Sequence[str]],
    common: Sequence[str],
    notes: list[str],
) -> list[PurePosixPath]:
    """A name per image, so that no two of their files have one path; the plainest that is distinct."""
    levels = [0] * len(images)
    for _ in _NAMINGS[1:]:
        names = [_NAMINGS[level](*image) for level, image in zip(levels, images, strict=True)]
        clashing = _clashing(names, endings, common)
        if not clashing:
            break
        for number in clashing:
            levels[number] = min(levels[number] + 1, len(_NAMINGS) - 1)
    names = [_NAMINGS[level](*image) for level, image in zip(levels, images, strict=True)]
    while clashing := _clashing(names, endings, common):
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


def _clashing(names: Sequence[PurePosixPath], endings: Sequence[Sequence[str]], common: Sequence[str]) -> set[int]:
    """Positions of names of which a file has the path of another name's file, or of a folder that is needed."""
    writers: dict[str, set[int]] = {name: {-1} for name in common}
    for number, (name, some) in enumerate(zip(names, endings, strict=True)):
        for ending in some:
            writers.setdefault(f"{name}{ending}".rstrip("/"), set()).add(number)
    clashing = {number for numbers in writers.values() if len(numbers) > 1 for number in numbers}
    folders = {str(parent) for name in names for parent in name.parents}
    clashing |= {number for path in folders & writers.keys() for number in writers[path]}
    return clashing - {-1}


def _check_outputs(
    items: Sequence[Input], out: Path, endings_of: EndingsOf, common: Sequence[str], problems: list[str]
) -> None:
    """Find every file that must not be replaced; only unchanged files of an earlier ``predict`` may be."""
    images = {item.path.resolve() for item in items}
    earlier = OwnOutputs(out)
    blocked: set[Path] = set()
    for item in items:
        for parent in item.target.parents:
            if parent == out or parent in blocked:
                break
            if os.path.lexists(parent) and not parent.is_dir():
                blocked.add(parent)
                problems.append(
                    f"{item.path}: its result needs the folder {parent}, which is a file; choose another --out"
                )
        for ending in endings_of(item.kind):
            output = output_path(item.target, ending.rstrip("/"))
            if not os.path.lexists(output) or any(parent in blocked for parent in output.parents):
                continue
            if output.resolve() in images:
                problems.append(f"{item.path}: its result would overwrite the input {output}; choose another --out")
            else:
                problems += _foreign(output, earlier, folder=ending.endswith("/"))
    for name in common:
        if os.path.lexists(out / name):
            problems += _foreign(out / name, earlier, folder=False)


def _foreign(output: Path, earlier: OwnOutputs, *, folder: bool) -> list[str]:
    """What speaks against replacing a file, or a folder with its files."""
    files = sorted(output.iterdir()) if folder and output.is_dir() and not output.is_symlink() else [output]
    return [
        f"{path}: exists, and predict did not write it, or it was changed since; choose another --out or move the file"
        for path in files
        if not earlier.holds(path)
    ]
