"""Files of a domain: a folder of images, with or without a folder of labels at the same relative paths."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from domainbridge.data.absent import absence, close_name
from domainbridge.data.name_pattern import STEM, NamePattern
from domainbridge.data.pairing import ambiguous_names, common_folder_advice, pattern_advice
from domainbridge.data.split_file import normalized, read_split, resolve
from domainbridge.data.storage.tar import archives, is_archives
from domainbridge.data.walk import IMAGE_SUFFIXES, LABEL_SUFFIXES, FolderFiles, files_below, suffix_of
from domainbridge.errors import DataError, problem_list

__all__ = ["FolderRule", "Listing", "list_folder", "report_missing"]


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
        elsewhere: suffixes of files that somebody else reads; these files count neither as images nor as left out.
    """

    split: Path | None = None
    image_pattern: str = STEM
    label_pattern: str = STEM
    exclude_files: tuple[str, ...] = ()
    elsewhere: frozenset[str] = frozenset()


@dataclass
class _Files:
    """The files of one kind: stem -> relative path of those that fit the pattern, and everything else."""

    folder: Path
    kind: str
    pattern: NamePattern
    content: FolderFiles = field(default_factory=FolderFiles)
    there: bool = False
    by_stem: dict[str, str] = field(default_factory=dict)
    twins: dict[str, list[str]] = field(default_factory=dict)

    def paths(self, stems: Iterable[str]) -> tuple[Path, ...]:
        """Paths of the files of ``stems``; names in archives are relative to the folder of the archives."""
        base = self.folder.parent if is_archives(self.folder) else self.folder
        return tuple(base / self.by_stem[stem] for stem in stems)


def list_folder(images: Path, labels: Path | None, rule: FolderRule) -> Listing:
    """Images below a folder, and labels with the same stems below another folder; ``labels`` None: unlabeled.

    Either folder may be archives instead (``name-*.tar``), which are read like folders. Hidden files, system folders
    and files of other types are left out; the notes give their number.

    Raises:
        DataError: an archive is damaged or compressed.
    """
    problems: list[str] = []
    notes: list[str] = []
    image_files = _files(images, "images", NamePattern(rule.image_pattern, IMAGE_SUFFIXES), problems)
    image_files.content.names = [name for name in image_files.content.names if suffix_of(name) not in rule.elsewhere]
    if labels is None:
        _index(image_files, problems, unique=rule.split is not None)
        stems = _select(image_files, rule, problems, notes)
        if image_files.twins and rule.split is None:
            one, other = next(iter(image_files.twins.values()))[:2]
            notes.append(
                f"images: {len(image_files.twins)} times several images have the same stem, e.g. {images / one} and "
                f"{other}; all are taken"
            )
        notes += _left_out(image_files, ())
        return Listing(image_files.paths(stems), None, tuple(problems), tuple(notes))
    label_files = _files(labels, "labels", NamePattern(rule.label_pattern, LABEL_SUFFIXES), problems)
    one_folder = image_files.there and images.absolute() == labels.absolute()
    _leave_to(image_files, label_files)
    _leave_to(label_files, image_files)
    if one_folder and rule.image_pattern == rule.label_pattern:
        advice = common_folder_advice(image_files.content.names)
        return Listing((), (), (*problems, f"images and labels: both are {images}; {advice}"))
    _index(label_files, problems)
    _index(image_files, problems, label_files.by_stem.values() if one_folder else ())
    stems = _select(image_files, rule, problems, notes)
    if label_files.by_stem:
        count = len(problems)
        report_missing(stems, label_files.by_stem, "images without label", labels, problems)
        if len(problems) > count and not any(stem in label_files.by_stem for stem in stems):
            problems[-1] += pattern_advice(image_files.by_stem, label_files.by_stem)
    if rule.split is None:
        unused = [stem for stem in label_files.by_stem if stem not in image_files.by_stem]
        if unused:
            (example,) = label_files.paths(unused[:1])
            notes.append(f"labels without image: {len(unused)} of {len(label_files.by_stem)}, e.g. {example}")
    paired = [stem for stem in stems if stem in label_files.by_stem]
    notes += _left_out(image_files, label_files.by_stem.values() if one_folder else ())
    if not one_folder:
        notes += _left_out(label_files, ())
    return Listing(image_files.paths(paired), label_files.paths(paired), tuple(problems), tuple(notes))


def _leave_to(outer: _Files, inner: _Files) -> None:
    """Take the files of a folder inside another one out of the outer folder's."""
    here, there = outer.folder.absolute(), inner.folder.absolute()
    if here != there and there.is_relative_to(here):
        prefix = f"{there.relative_to(here).as_posix()}/"
        outer.content.names = [name for name in outer.content.names if not name.startswith(prefix)]


def _files(folder: Path, kind: str, pattern: NamePattern, problems: list[str]) -> _Files:
    """What is below a folder or in archives."""
    files = _Files(folder, kind, pattern)
    if not (archives(folder) if is_archives(folder) else folder.is_dir()):
        expected = "archive" if is_archives(folder) else "folder"
        is_file = f"{folder} is a file; expected a folder, or .tar archives without compression"
        if kind == "labels":
            is_file = f"{folder} is a file, and no annotation of a known format; expected a folder, an annotation of a "
            is_file += "format that annotation_format may name, or .tar archives without compression"
        hint = "" if folder.exists() or expected == "archive" else absence(folder)
        problems.append(f"{kind}: {is_file if folder.is_file() else f'no such {expected}: {folder}{hint}'}")
        return files
    try:
        files.content, files.there = files_below(folder), True
    except DataError as error:
        problems.append(f"{kind}: {error}")
        return files
    for names, text in (
        (files.content.broken, "links to files that do not exist"),
        (files.content.special, "pipes or devices instead of files"),
    ):
        known = [name for name in names if suffix_of(name) in pattern.suffixes]
        if known:
            problems.append(f"{kind}: {len(known)} {text}, e.g. {folder / known[0]}; remove or restore them")
    return files


def _others(files: _Files) -> Counter[str]:
    return files.content.other_suffixes(files.pattern.suffixes)


def _index(files: _Files, problems: list[str], others: Iterable[str] = (), *, unique: bool = True) -> None:
    """Fill ``by_stem`` with the files that fit the pattern, without ``others``.

    With ``unique``, two files of one stem are a problem; else the second one is known by its whole name.
    """
    taken = set(others)
    fitting = [name for name in files.content.names if suffix_of(name) in files.pattern.suffixes]
    if not fitting and files.there:
        others = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in _others(files).most_common(5))
        suffixes = ", ".join(sorted(files.pattern.suffixes))
        problems.append(
            f"{files.kind}: no image (of {suffixes}) below {files.folder}; found {others or 'no other file'}"
        )
    twins = files.twins
    for name in fitting:
        stem = files.pattern.stem_of(name)
        if stem is None or name in taken:
            continue
        if stem in files.by_stem:
            twins.setdefault(stem, [files.by_stem[stem]]).append(name)
            if not unique:
                files.by_stem[name] = name
        else:
            files.by_stem[stem] = name
    if twins and unique:
        problems.append(f"{files.kind}: {ambiguous_names(files.folder, files.kind, files.pattern.text, twins)}")
    if fitting and not files.by_stem:
        problems.append(
            f"{files.kind}: none of the {len(fitting)} images below {files.folder} is named {files.pattern.text}, "
            f"e.g. {fitting[0]}"
        )


def _select(files: _Files, rule: FolderRule, problems: list[str], notes: list[str]) -> list[str]:
    """Stems of the domain's images: all stems, or the stems of the split file, without excluded stems."""
    stems = list(files.by_stem)
    if rule.split is not None:
        stems = _split_stems(rule.split, files, problems, notes)
    excluded = {_known_stem(normalized(name), files) for name in rule.exclude_files}
    report_missing(
        sorted(excluded), files.by_stem, "exclude_files names images that do not exist", files.folder, problems
    )
    stems = [stem for stem in stems if stem not in excluded]
    if files.by_stem and not stems and not problems:
        problems.append(f"exclude_files leaves none of the {len(files.by_stem)} images below {files.folder}")
    return stems


def _known_stem(name: str, files: _Files) -> str:
    """The stem of a file that is named with its ending, as ``a.jpg`` for ``a``; any other name as it is."""
    stem = files.pattern.stem_of(name)
    return stem if stem is not None and name not in files.by_stem and stem in files.by_stem else name


def _split_stems(split: Path, files: _Files, problems: list[str], notes: list[str]) -> list[str]:
    """Stems in a split file, in its order, each once."""
    try:
        listed = read_split(split)
    except OSError as error:
        hint = "" if split.exists() else absence(split)
        problems.append(f"the split file {split} cannot be read: {error.strerror}{hint}")
        return []
    notes += listed.notes
    if not listed.entries:
        problems.append(f"the split file {split} lists nothing")
    matches = [resolve(readings, files.by_stem, files.pattern.stem_of) for readings in listed.entries]
    prefixes = Counter(match.dropped for match in matches if match is not None)
    usual = prefixes.most_common(1)[0][0] if prefixes else ""
    names = [
        match.stem if match is not None and match.dropped == usual else readings[0]
        for readings, match in zip(listed.entries, matches, strict=True)
    ]
    if files.by_stem:
        report_missing(names, files.by_stem, f"{split} lists images that do not exist", files.folder, problems)
    stems = [match.stem for match in matches if match is not None and match.dropped == usual]
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        notes.append(f"the split file {split} lists {', '.join(twice[:5])} more than once; each image is taken once")
    return list(dict.fromkeys(stems))


def report_missing(
    stems: Sequence[str], known: Collection[str], message: str, folder: Path, problems: list[str]
) -> None:
    """Add a problem if some of the stems are not among the known stems below the folder."""
    missing = [stem for stem in stems if stem not in known]
    if missing:
        close = close_name(missing[0], list(known)[:2000])
        hint = f" (did you mean {close}?)" if close is not None else ""
        listed = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        problems.append(f"{message}: {len(missing)} of {len(stems)} have no file below {folder}: {listed}{hint}")


def _left_out(files: _Files, others: Iterable[str]) -> list[str]:
    """A sentence about the files that are not read; ``others`` of them are read as something else."""
    parts = [f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(_others(files).items())]
    taken = {*files.by_stem.values(), *others, *chain.from_iterable(files.twins.values())}
    unfit = [name for name in files.content.names if suffix_of(name) in files.pattern.suffixes and name not in taken]
    if unfit:
        parts.append(f"{len(unfit)} not named {files.pattern.text} (e.g. {unfit[0]})")
    if files.content.hidden:
        parts.append(f"{files.content.hidden} hidden or of the system")
    return [f"{files.kind}: files left out below {files.folder}: {', '.join(parts)}"] if parts else []
