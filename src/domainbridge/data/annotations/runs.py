"""Run-length encodings: COCO's (plain and compressed), CVAT's, and that of Label Studio's brush."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["brush_values", "decompressed_counts", "mask_of_counts"]


def mask_of_counts(counts: Any, rows: int, columns: int) -> NDArray[np.bool_]:
    """A mask from lengths of runs, false first, bool (rows, columns), row by row.

    Raises:
        ValueError: the runs do not add up to rows x columns.
    """
    lengths = np.asarray(counts)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iuf" or (lengths != lengths.astype(np.int64)).any():
        raise ValueError("runs: expected a list of whole numbers")
    lengths = lengths.astype(np.int64)
    if (lengths < 0).any() or (lengths > rows * columns).any() or int(lengths.sum()) != rows * columns:
        raise ValueError(f"runs: lengths add up to {int(lengths.sum())}, expected {rows} x {columns}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(rows, columns)


def decompressed_counts(text: str) -> list[int]:
    """Lengths of runs in COCO's compressed text: base 32 with sign, from the third on as differences.

    Raises:
        ValueError: no such text.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("counts: no compressed run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("counts: the text is cut off")
    return counts


def brush_values(data: Any, expected: int) -> NDArray[np.uint8]:
    """The values of a brush of Label Studio, uint8 (expected,): 4 channels per pixel, the last is the mask.

    The bytes hold bits: 32 for the number of values, 5 for the bits of a value, 4 x 4 for the bits of lengths, then
    runs and literal values in turn.

    Raises:
        ValueError: other data, or another number of values.
    """
    raw = np.asarray(data)
    if raw.ndim != 1 or raw.dtype.kind not in "iu" or not ((raw >= 0) & (raw < 256)).all():
        raise ValueError("rle: expected a list of bytes")
    bits = np.unpackbits(raw.astype(np.uint8))
    position = 0

    def number(size: int) -> int:
        nonlocal position
        part = bits[position : position + size]
        if len(part) < size:
            raise ValueError("rle: cut off")
        position += size
        return int.from_bytes(np.packbits(part, bitorder="big").tobytes(), "big") >> (-size % 8)

    count, word = number(32), number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    if count != expected:
        raise ValueError(f"rle: {count} values, expected {expected}")
    values, done = np.zeros(count, np.uint8), 0
    while done < count:
        is_run = number(1)
        end = min(done + 1 + number(sizes[number(2)]), count)
        if is_run:
            values[done:end] = number(word) & 255
        else:
            literal = bits[position : position + (end - done) * word]
            if len(literal) < (end - done) * word:
                raise ValueError("rle: cut off")
            position += len(literal)
            last = literal.reshape(end - done, word)[:, -8:]
            values[done:end] = last @ (1 << np.arange(last.shape[1])[::-1])
        done = end
    return values
