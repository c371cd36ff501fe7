"""Values of command-line options."""

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from domainbridge.errors import RecipeError

if TYPE_CHECKING:
    from domainbridge.data.transforms import ResizeRule, ScaleRule

_LARGEST_FACTOR = 16

__all__ = [
    "parse_limits", "parse_numbers", "parse_resize", "parse_scales", "parse_size", "writable",
    "writable_folder",
]  # fmt: skip


def writable(path: Path, what: str) -> None:
    """See that a file can be written before work is done for it.

    Raises:
        RecipeError: it cannot.
    """
    parent = path.absolute().parent
    if path.is_dir():
        raise RecipeError(f"{what}: {path} is a folder; give the path of a file")
    if not parent.is_dir():
        raise RecipeError(f"{what}: {path} cannot be written, there is no folder {parent}; make it first")
    if not os.access(parent, os.W_OK):
        raise RecipeError(f"{what}: {path} cannot be written, {parent} is read-only for you; choose another place")


def writable_folder(path: Path, what: str) -> None:
    """See that a folder is there or can be made.

    Raises:
        RecipeError: it cannot.
    """
    first = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not first.is_dir():
        raise RecipeError(f"{what}: {path} cannot be a folder, {first} is a file; choose another place")
    if not os.access(first, os.W_OK):
        raise RecipeError(f"{what}: {path} cannot be written, {first} is read-only for you; choose another place")


def parse_size(text: str, option: str) -> tuple[int, int] | None:
    """'1024x512' to (1024, 512); 'none' to None.

    Raises:
        RecipeError: neither.
    """
    if text == "none":
        return None
    if not (match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
        raise RecipeError(f"{option} {text}: expected WIDTHxHEIGHT such as 1024x512, or 'none'")
    return int(match[1]), int(match[2])


def parse_resize(text: str, option: str) -> "ResizeRule | ScaleRule | None":
    """'1024x512' to a box in which an image keeps its shape, '0.5' to a factor of both sides, 'none' to None.

    Raises:
        RecipeError: none of these.
    """
    from domainbridge.data.transforms import ResizeRule, ScaleRule

    if re.fullmatch(r"\d*\.?\d+", text) and 0 < float(text) <= _LARGEST_FACTOR:
        return ScaleRule(float(text))
    try:
        size = parse_size(text, option)
    except RecipeError:
        raise RecipeError(
            f"{option} {text}: expected WIDTHxHEIGHT such as 1024x512, a factor such as 0.5, or 'none'"
        ) from None
    return size and ResizeRule(*size)


def parse_numbers(text: str, option: str) -> tuple[int, ...]:
    """'6,12' to (6, 12).

    Raises:
        RecipeError: not positive whole numbers with commas between.
    """
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise RecipeError(f"{option} {text}: expected whole numbers with commas between, such as 6,12")
    return tuple(int(part) for part in text.split(","))


def parse_scales(text: str, option: str) -> tuple[float, ...]:
    """'0.75,1,1.25' to (0.75, 1.0, 1.25).

    Raises:
        RecipeError: not distinct factors of an image's size with commas between.
    """
    from domainbridge.evaluation.inference_rule import given_scales

    try:
        scales = [float(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(f"{option} {text}: expected numbers with commas between, such as 0.75,1,1.25") from None
    return given_scales(scales, f"{option} {text}")


def parse_limits(text: str, option: str, allowed: tuple[float, float] = (-math.inf, math.inf)) -> tuple[float, float]:
    """'0,4095' to (0.0, 4095.0).

    Raises:
        RecipeError: not two numbers within ``allowed`` with a comma between, the smaller one first.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not (allowed[0] <= low < high <= allowed[1] and math.isfinite(low) and math.isfinite(high)):
        limits = "" if math.isinf(allowed[1]) else f" from {allowed[0]:g} to {allowed[1]:g}"
        raise RecipeError(f"{option} {text}: expected two numbers{limits}, the smaller one first, a comma between")
    return low, high
