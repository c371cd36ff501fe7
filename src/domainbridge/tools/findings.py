"""Many files with one fault as one line: what was found, how often, three of the files, what to do."""

from collections import Counter
from collections.abc import Iterable, Sequence

from domainbridge.data.bands import scale_advice
from domainbridge.errors import DataError, FileError

__all__ = ["grouped"]

_NAMED_FILES = 3
_NAMED_VALUES = 10


def grouped(errors: Iterable[DataError], named: int | None = _NAMED_FILES) -> list[str]:
    """A line per cause, the most frequent first; errors that are about no single file come before.

    ``named``: how many files of a cause are named; None: all.
    """
    general = [str(error) for error in errors if not isinstance(error, FileError)]
    groups: dict[tuple[str, str], list[FileError]] = {}
    for error in errors:
        if isinstance(error, FileError):
            groups.setdefault((str(error.path.parent), error.group), []).append(error)
    ordered = sorted(groups.values(), key=lambda group: -len(group))
    return [*general, *(_line(group, named) for group in ordered)]


def _line(group: Sequence[FileError], named: int | None) -> str:
    first = group[0]
    if len(group) == 1:
        return str(first)
    named = len(group) if named is None else named
    names = ", ".join(error.path.name for error in group[:named])
    more = f" and {len(group) - named} more" if len(group) > named else ""
    example = "" if first.limits is not None or first.text == first.group else f"; e.g. {first.path.name}: {first.text}"
    return f"{len(group)} files of {first.path.parent} ({names}{more}): {_cause(group)}{example}"


def _cause(group: Sequence[FileError]) -> str:
    first = group[0]
    limits = [error.limits for error in group if error.limits is not None]
    if limits:
        return f"{first.group}; {scale_advice(min(low for low, _ in limits), max(high for _, high in limits))}"
    values: Counter[str] = Counter()
    for error in group:
        values.update(error.values)
    if not values:
        return first.group
    listed = ", ".join(value for value, _ in values.most_common(_NAMED_VALUES))
    return f"{first.group}: {listed}" + (
        f" and {len(values) - _NAMED_VALUES} more" if len(values) > _NAMED_VALUES else ""
    )
