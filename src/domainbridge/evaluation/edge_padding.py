"""Images whose sides the network's largest stride does not divide: continued to the next multiple for the network.

A convolutional network rounds up: 240 rows give 8 cells of 32 pixels, which cover 256. Spread over 240 rows, as
published, the last cells lie up to 16 pixels off. Of an image with rows and columns added at the bottom and at the
right, cells lie as in training; the result is that of the image alone.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["continued", "covered"]


def continued(image: NDArray[np.uint8], grid: int) -> NDArray[np.uint8]:
    """The image with its last row and column repeated until ``grid`` divides both sides.

    Args:
        image: RGB, uint8 (height, width, 3).
        grid: pixels.
    """
    height, width = image.shape[:2]
    tall, wide = covered((height, width), grid)
    if (tall, wide) == (height, width):
        return image
    return np.pad(image, ((0, tall - height), (0, wide - width), (0, 0)), mode="edge")


def covered(size: tuple[int, int], grid: int) -> tuple[int, int]:
    """(height, width) of a continued image of that size, which its logits cover."""
    return size[0] + -size[0] % grid, size[1] + -size[1] % grid
