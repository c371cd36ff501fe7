"""Values that are typed as words on the command line."""

import re

from domainbridge.errors import RecipeError

__all__ = ["parse_numbers", "parse_size"]


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


def parse_numbers(text: str, option: str) -> tuple[int, ...]:
    """'6,12' to (6, 12).

    Raises:
        RecipeError: not positive whole numbers with commas between.
    """
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise RecipeError(f"{option} {text}: expected whole numbers with commas between, such as 6,12")
    return tuple(int(part) for part in text.split(","))
