"""Text for a terminal: names of files and archive members may hold escape codes, and bytes that are no UTF-8."""

import re

__all__ = ["printable"]

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and line end, marks that turn the direction of text, and lone surrogates."""


def printable(text: object) -> str:
    """A text in which nothing commands a terminal.

    Control characters become ``\\x1b``; bytes that are no UTF-8, which Python keeps as surrogates, ``\\xff``.
    """
    return _UNPRINTABLE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    if 0xDC80 <= number <= 0xDCFF:  # surrogateescape
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
