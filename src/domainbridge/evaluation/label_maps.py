"""Label maps that are given beside a model: a mapping, a YAML file, or ``0=background,255=crack``; and labels that
cannot be scored without one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from domainbridge.data.dataset import FileDataset
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.labels import IdLabels
from domainbridge.errors import DataError, RecipeError, problem_list
from domainbridge.types import IGNORE

__all__ = ["check_classes_occur", "read_label_map"]

LabelMap = dict[int | str, int | str]

_FORMS = "expected VALUE=CLASS pairs, such as 0=background,255=crack, or the path to a YAML file with such pairs"
_WHOLE = re.compile(r"\d+")
_VALUES_SHOWN = 12
_FILES_READ = 200


def read_label_map(given: Mapping[Any, Any] | Path | str, where: str = "--label-map") -> LabelMap:
    """Label values or '#rrggbb' to class names, train ids or 'ignore'.

    Args:
        given: such a mapping; path to a YAML file with one, alone or under the key ``label_map``; or pairs as text.
        where: for messages.

    Raises:
        RecipeError: none of these, or keys or values that mean nothing; the message lists all of them.
    """
    if isinstance(given, Mapping):
        return _checked([*given.items()], where)
    path = Path(given)
    if "=" in str(given) and not path.is_file():
        pairs = [part.split("=", 1) for part in str(given).split(",")]
        if any(len(pair) != 2 for pair in pairs):
            raise RecipeError(f"{where} {given}: {_FORMS}")
        return _checked([(key.strip(), value.strip()) for key, value in pairs], where)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{where} {given}: cannot be read ({error.strerror or error}); {_FORMS}") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecipeError(f"{where} {given}: no YAML ({reason}); {_FORMS}") from error
    if isinstance(content, Mapping) and isinstance(content.get("label_map"), Mapping):
        content = content["label_map"]
    if not isinstance(content, Mapping) or not content:
        raise RecipeError(f"{where} {given}: found {type(content).__name__}; {_FORMS}")
    return _checked([*content.items()], f"{where} {given}")


def _checked(pairs: list[tuple[Any, Any]], where: str) -> LabelMap:
    problems: list[str] = []
    seen: LabelMap = {}
    for key, value in pairs:
        for part, kind in ((key, "key"), (value, "value")):
            if isinstance(part, bool) or not isinstance(part, int | str) or part == "":
                problems.append(f"{kind} {part!r}: expected a number or a text; in YAML, quote names and '#rrggbb'")
        key, value = _number(key), _number(value)
        if isinstance(key, int | str) and key in seen:
            problems.append(f"key {key!r}: given twice")
        seen[key] = value
    if problems:
        raise RecipeError(problem_list(f"{where}: {len(problems)} problems", problems))
    return seen


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else value


def check_classes_occur(dataset: FileDataset, space: LabelSpace, where: str, *, in_recipe: bool = False) -> None:
    """See that at least two classes have pixels in the labels, before any image goes through the network.

    Labels are read until two classes are found: usually one file.

    Args:
        dataset: labeled.
        space: of its labels.
        where: for messages.
        in_recipe: the message names the recipe's key in the place of the option ``--label-map``.

    Raises:
        DataError: at most one class has pixels; or a label that was read is in no order.
    """
    seen: set[int] = set()
    for index in range(len(dataset)):
        seen |= set(np.unique(dataset.load_label(index)).tolist()) - {IGNORE}
        if len(seen) > 1:
            return
    names = f"only {space.classes[min(seen)]} has" if seen else "no class has"
    values = _values(dataset)
    if not values:
        raise DataError(f"{where}: {names} pixels in the labels, so no score means anything")
    raise DataError(
        f"{where}: {names} pixels in the labels, so no score means anything. The label files have the "
        f"{_listed(values)}{_suggestion(values, space, in_recipe)}"
    )


def _values(dataset: FileDataset) -> list[int]:
    """Values in the label files, or in some of many; nothing for labels that are no values."""
    if dataset.labels is None or not isinstance(dataset.decoder, IdLabels) or dataset.decoder.first_channel:
        return []
    some = dataset.labels[:: max(len(dataset.labels) // _FILES_READ, 1)]
    return sorted(set().union(*(np.unique(dataset.decoder.values(path)).tolist() for path in some)))


def _listed(values: list[int]) -> str:
    if len(values) == 1:
        return f"value {values[0]}"
    if len(values) <= _VALUES_SHOWN:
        return f"values {', '.join(map(str, values[:-1]))} and {values[-1]}"
    return f"values {', '.join(map(str, values[:_VALUES_SHOWN]))} and {len(values) - _VALUES_SHOWN} more"


def _suggestion(values: list[int], space: LabelSpace, in_recipe: bool) -> str:
    form = "label_map: {%s: %s, %s: %s}" if in_recipe else "--label-map %s=%s,%s=%s"
    if len(values) == 2 and len(space) >= 2:
        low, high = values
        return ": a binary mask? " + form % (low, space.classes[0], high, space.classes[1])
    pairs = form % ("VALUE", "CLASS", "VALUE", "CLASS")
    return f"; say which classes they are: {pairs} with the classes {', '.join(space.classes)}"
