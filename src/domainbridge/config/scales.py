"""The factors of a multi-scale test. No pydantic here: exported files predict without it."""

import math
from collections.abc import Sequence

__all__ = ["checked_scales"]

_SMALLEST, _LARGEST = 0.1, 10.0


def checked_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """Factors of an image's size.

    Raises:
        ValueError: none, one that is no number from 0.1 to 10, or one twice; the message lists all of these.
    """
    wrong = [scale for scale in scales if not (math.isfinite(scale) and _SMALLEST <= scale <= _LARGEST)]
    twice = sorted({scale for scale in scales if list(scales).count(scale) > 1})
    problems = [] if scales else ["no factor; 1 alone is the image as it is"]
    if wrong:
        problems.append(f"expected factors from {_SMALLEST:g} to {_LARGEST:g}, found {_listed(wrong)}")
    if twice:
        problems.append(f"{_listed(twice)} more than once; give each factor once")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(map(float, scales))


def _listed(scales: Sequence[float]) -> str:
    return ", ".join(f"{scale:g}" for scale in scales)
