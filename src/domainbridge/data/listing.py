"""Which files a domain consists of: a folder of images, with or without its mirror image of labels."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbridge.data.path_list import PathList
from domainbridge.data.stored import archive_members, archives, is_archives
from domainbridge.errors import DataError, problem_list

__all__ = ["IMAGE_SUFFIXES", "FolderRule", "Listing", "Walk", "list_folder", "report_missing"]

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
        watched: every folder that was looked into and every split file read: while their times stay, the list does.
        seen: files that were looked at, wanted or not.
    """

    images: PathList
    labels: PathList | None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()
    seen: int = 0

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


@dataclass
class Walk:
    """What a listing looks at on its way.

    Attributes:
        watched: folders and split files, as in :class:`Listing`.
        seen: number of files.
    """

    watched: list[str]
    seen: int = 0

    def names_below(self, folder: Path) -> Iterator[str]:
        """Paths of the files below ``folder``, relative to it, with forward slashes, sorted; no hidden files.

        Of archives (``name-*.tar``): the paths of their members, relative to the archives' folder.

        Raises:
            DataError: an archive is damaged or compressed.
        """
        if is_archives(folder):
            yield from self._members_of(folder)
            return
        for directory, subfolders, names in os.walk(folder, onerror=self._unreadable, followlinks=True):
            self.watched.append(directory)
            # A link to a folder that is not there (yet) counts as a file.
            paths = (f"{directory}{os.sep}{name}" for name in names if "." not in name)
            self.watched.extend(path for path in paths if not os.path.exists(path))  # noqa: PTH110 - strings
            self.seen += len(names)
            subfolders[:] = sorted(name for name in subfolders if not _leads_back(directory, name))
            below = os.path.relpath(directory, folder)
            prefix = "" if below == "." else below.replace(os.sep, "/") + "/"
            yield from (prefix + name for name in sorted(names) if not name.startswith("."))

    def _unreadable(self, error: OSError) -> None:
        self.watched.append(error.filename)

    def _members_of(self, pattern: Path) -> Iterator[str]:
        self.watched.append(str(pattern.parent))
        for archive in archives(pattern):
            self.watched.append(str(archive))
            members = archive_members(archive)
            self.seen += len(members)
            yield from (f"{archive.name}/{name}" for name in sorted(members) if not Path(name).name.startswith("."))


def _leads_back(directory: str, name: str) -> bool:
    """Whether a subfolder is a link to a folder that it lies in, which would be walked through again and again."""
    path = os.path.join(directory, name)  # noqa: PTH118 - strings, as os.walk gives them
    if not os.path.islink(path):  # noqa: PTH114
        return False
    here, there = os.path.realpath(directory), os.path.realpath(path)
    return os.path.commonpath([here, there]) == there


def list_folder(images: Path, labels: Path | None, rule: FolderRule) -> Listing:
    """Images of a folder and below, and their labels at the same stem below another; ``labels`` None: unlabelled.

    Either may be archives instead (``name-*.tar``), which are read as folders are.

    Raises:
        DataError: an archive is damaged or compressed.
    """
    problems: list[str] = []
    notes: list[str] = []
    walk = Walk([] if rule.split is None else [str(rule.split)])
    by_stem = _index(images, rule.image_pattern, "images", problems, walk)
    stems = list(by_stem)
    if rule.split is not None:
        stems = _split_stems(rule.split, problems)
        if by_stem:
            report_missing(stems, by_stem, f"{rule.split} lists images that are not there", images, problems)
    report_missing(rule.exclude, by_stem, "exclude names images that are not there", images, problems)
    excluded = set(rule.exclude)
    stems = [stem for stem in stems if stem in by_stem and stem not in excluded]
    if by_stem and not stems and not problems:
        problems.append(f"exclude leaves none of the {len(by_stem)} images below {images}")
    if labels is None:
        found = PathList((by_stem[stem] for stem in stems), _base(images))
        return Listing(found, None, tuple(problems), watched=tuple(walk.watched), seen=walk.seen)
    label_by_stem = _index(labels, rule.label_pattern, "labels", problems, walk)
    if label_by_stem:
        report_missing(stems, label_by_stem, "images without label", labels, problems)
    if rule.split is None:
        unused = [stem for stem in label_by_stem if stem not in by_stem]
        if unused:
            example = f"{_base(labels)}{os.sep}{label_by_stem[unused[0]]}"
            notes.append(f"labels without image: {len(unused)} of {len(label_by_stem)}, e.g. {example}")
    paired = [stem for stem in stems if stem in label_by_stem]
    found_images = PathList((by_stem[stem] for stem in paired), _base(images))
    found_labels = PathList((label_by_stem[stem] for stem in paired), _base(labels))
    return Listing(found_images, found_labels, tuple(problems), tuple(notes), tuple(walk.watched), walk.seen)


def _base(folder: Path) -> str:
    """What the names of its files are relative to."""
    return str(folder.parent if is_archives(folder) else folder)


def _index(folder: Path, pattern: str, what: str, problems: list[str], walk: Walk) -> dict[str, str]:
    """Stem -> image file, both relative to ``folder``, for those whose path fits the pattern."""
    if not (archives(folder) if is_archives(folder) else folder.is_dir()):
        wanted = "archive" if is_archives(folder) else "folder"
        found_file = f"{folder} is a file; expected a folder, or .tar archives without compression"
        problems.append(f"{what}: {found_file if folder.is_file() else f'no such {wanted}: {folder}'}")
        return {}
    with_suffix = Path(pattern).suffix.lower() in IMAGE_SUFFIXES
    before, _, after = pattern.partition(_STEM)
    shape = re.compile(re.escape(before) + "(?P<stem>.+)" + re.escape(after))
    found: dict[str, str] = {}
    images, example = 0, ""
    for name in walk.names_below(folder):
        body, _, ending = name.rpartition(".")
        if f".{ending.lower()}" not in IMAGE_SUFFIXES:
            continue
        images, example = images + 1, example or name
        fit = shape.fullmatch(name if with_suffix else body)
        if fit is None:
            continue
        if fit["stem"] in found:
            twins = f"{_base(folder)}{os.sep}{found[fit['stem']]} and {name}"
            problems.append(f"{what}: {twins} have the same stem; keep one")
        found[fit["stem"]] = name
    if not images:
        problems.append(f"{what}: no image (of {', '.join(sorted(IMAGE_SUFFIXES))}) below {folder}")
    elif not found:
        problems.append(f"{what}: none of the {images} images below {folder} is named {pattern}, e.g. {example}")
    return found


def _split_stems(split: Path, problems: list[str]) -> list[str]:
    """Stems listed in a split file, one per line, each once; blank lines are skipped."""
    try:
        stems = [line.strip() for line in split.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
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


def report_missing(stems: Sequence[str], found: Collection[str], what: str, folder: Path, problems: list[str]) -> None:
    """Add a problem when some of the stems are not among those found below the folder."""
    missing = [stem for stem in stems if stem not in found]
    if missing:
        close = difflib.get_close_matches(missing[0], list(found)[:2000], n=1, cutoff=0.8)
        hint = f" (a close name there: {close[0]})" if close else ""
        bare = missing[0].rpartition(".")[0]
        if bare in found:
            hint = f" (names are without ending: {bare})"
        listed = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        problems.append(f"{what}: {len(missing)} of {len(stems)} have no file below {folder}: {listed}{hint}")
