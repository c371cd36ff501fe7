"""Files of a domain: a folder of images, with or without a folder of labels at the same relative paths."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbridge.data.storage.tar import archive_members, archives, is_archives
from domainbridge.errors import DataError, problem_list

__all__ = ["IMAGE_SUFFIXES", "FolderRule", "Listing", "list_folder", "names_below", "report_missing"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
_STEM = "{stem}"


@dataclass(frozen=True)
class Listing:
    """The files of a domain.

    Attributes:
        images: usable images, in the order of their names or of the split file.
        labels: labels in the same order; None for an unlabeled domain.
        problems: reasons against training, each a sentence.
        notes: remarks, each a sentence.
    """

    images: tuple[Path, ...]
    labels: tuple[Path, ...] | None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def checked(self, where: str) -> "Listing":
        """The same listing.

        Raises:
            DataError: the listing has problems; the message lists all of them.
        """
        if len(self.problems) == 1:
            raise DataError(f"{where}: {self.problems[0]}")
        if self.problems:
            raise DataError(problem_list(f"{where}: {len(self.problems)} problems", self.problems))
        return self


@dataclass(frozen=True)
class FolderRule:
    """Selection of a domain's files below a folder, and the label of each image.

    Attributes:
        split: text file that lists stems, one per line; None takes every image.
        image_pattern: path below the images folder; ``{stem}`` is the part that image and label share. Without a
            suffix, any image suffix fits.
        label_pattern: likewise, below the labels folder.
        exclude_files: stems to leave out.
    """

    split: Path | None = None
    image_pattern: str = _STEM
    label_pattern: str = _STEM
    exclude_files: tuple[str, ...] = ()


def names_below(folder: Path) -> Iterator[str]:
    """Paths of the files below ``folder``, relative, with forward slashes, sorted; no hidden files.

    For archives (``name-*.tar``): paths of the members, relative to the folder of the archives.

    Raises:
        DataError: an archive is damaged or compressed.
    """
    if is_archives(folder):
        yield from _names_in_archives(folder)
        return
    for directory, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not _is_symlink_loop(directory, name))
        below = os.path.relpath(directory, folder)
        prefix = "" if below == "." else below.replace(os.sep, "/") + "/"
        yield from (prefix + name for name in sorted(names) if not name.startswith("."))


def _names_in_archives(pattern: Path) -> Iterator[str]:
    for archive in archives(pattern):
        names = sorted(archive_members(archive))
        yield from (f"{archive.name}/{name}" for name in names if not Path(name).name.startswith("."))


def _is_symlink_loop(directory: str, name: str) -> bool:
    """Whether a subfolder is a link to one of its parents, so that a walk would not end."""
    path = os.path.join(directory, name)  # noqa: PTH118 - strings, as os.walk gives them
    if not os.path.islink(path):  # noqa: PTH114
        return False
    here, destination = os.path.realpath(directory), os.path.realpath(path)
    return os.path.commonpath([here, destination]) == destination


def list_folder(images: Path, labels: Path | None, rule: FolderRule) -> Listing:
    """Images below a folder, and labels with the same stems below another folder; ``labels`` None: unlabeled.

    Either folder may be archives instead (``name-*.tar``), which are read like folders.

    Raises:
        DataError: an archive is damaged or compressed.
    """
    problems: list[str] = []
    notes: list[str] = []
    by_stem = _index(images, rule.image_pattern, "images", problems)
    stems = _select(images, by_stem, rule, problems)
    if labels is None:
        return Listing(_paths(images, by_stem, stems), None, tuple(problems))
    label_by_stem = _index(labels, rule.label_pattern, "labels", problems)
    if label_by_stem:
        report_missing(stems, label_by_stem, "images without label", labels, problems)
    if rule.split is None:
        unused = [stem for stem in label_by_stem if stem not in by_stem]
        if unused:
            (example,) = _paths(labels, label_by_stem, unused[:1])
            notes.append(f"labels without image: {len(unused)} of {len(label_by_stem)}, e.g. {example}")
    paired = [stem for stem in stems if stem in label_by_stem]
    return Listing(
        _paths(images, by_stem, paired), _paths(labels, label_by_stem, paired), tuple(problems), tuple(notes)
    )


def _select(images: Path, by_stem: dict[str, str], rule: FolderRule, problems: list[str]) -> list[str]:
    """Stems of the domain's images: all stems, or the stems of the split file, without excluded stems."""
    stems = list(by_stem)
    if rule.split is not None:
        stems = _split_stems(rule.split, problems)
        if by_stem:
            report_missing(stems, by_stem, f"{rule.split} lists images that do not exist", images, problems)
    excluded = set(rule.exclude_files)
    report_missing(rule.exclude_files, by_stem, "exclude_files names images that do not exist", images, problems)
    stems = [stem for stem in stems if stem in by_stem and stem not in excluded]
    if by_stem and not stems and not problems:
        problems.append(f"exclude_files leaves none of the {len(by_stem)} images below {images}")
    return stems


def _paths(folder: Path, names: dict[str, str], stems: Iterable[str]) -> tuple[Path, ...]:
    """Paths of the files of ``stems``; their names are relative to ``folder``, or to the folder of archives."""
    base = folder.parent if is_archives(folder) else folder
    return tuple(base / names[stem] for stem in stems)


def _index(folder: Path, pattern: str, kind: str, problems: list[str]) -> dict[str, str]:
    """Stem -> relative path of the image file, for the files that fit the pattern."""
    if not (archives(folder) if is_archives(folder) else folder.is_dir()):
        expected = "archive" if is_archives(folder) else "folder"
        is_file = f"{folder} is a file; expected a folder, or .tar archives without compression"
        problems.append(f"{kind}: {is_file if folder.is_file() else f'no such {expected}: {folder}'}")
        return {}
    with_suffix = Path(pattern).suffix.lower() in IMAGE_SUFFIXES
    before, _, after = pattern.partition(_STEM)
    expression = re.compile(re.escape(before) + "(?P<stem>.+)" + re.escape(after))
    by_stem: dict[str, str] = {}
    num_images, example = 0, ""
    for name in names_below(folder):
        body, _, ending = name.rpartition(".")
        if f".{ending.lower()}" not in IMAGE_SUFFIXES:
            continue
        num_images, example = num_images + 1, example or name
        match = expression.fullmatch(name if with_suffix else body)
        if match is None:
            continue
        stem = match["stem"]
        if stem in by_stem:
            (twin,) = _paths(folder, by_stem, [stem])
            problems.append(f"{kind}: {twin} and {name} have the same stem; keep one")
        by_stem[stem] = name
    if not num_images:
        problems.append(f"{kind}: no image (of {', '.join(sorted(IMAGE_SUFFIXES))}) below {folder}")
    elif not by_stem:
        problems.append(f"{kind}: none of the {num_images} images below {folder} is named {pattern}, e.g. {example}")
    return by_stem


def _split_stems(split: Path, problems: list[str]) -> list[str]:
    """Stems in a split file, one per line, each once; blank lines are skipped."""
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


def report_missing(
    stems: Sequence[str], known: Collection[str], message: str, folder: Path, problems: list[str]
) -> None:
    """Add a problem if some of the stems are not among the known stems below the folder."""
    missing = [stem for stem in stems if stem not in known]
    if missing:
        close = difflib.get_close_matches(missing[0], list(known)[:2000], n=1, cutoff=0.8)
        hint = f" (did you mean {close[0]}?)" if close else ""
        without_suffix = missing[0].rpartition(".")[0]
        if without_suffix in known:
            hint = f" (names are without ending: {without_suffix})"
        listed = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        problems.append(f"{message}: {len(missing)} of {len(stems)} have no file below {folder}: {listed}{hint}")
