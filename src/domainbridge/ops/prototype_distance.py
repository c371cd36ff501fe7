"""Class means of, and distances in, upsampled features, without upsampling the features (docs/method.md, section 8).

Bilinear upsampling U is linear, separable and keeps constants: (Uz)(Y, X) = sum_yx Uy[Y, y] Ux[X, x] z(y, x).
So a class mean needs only the adjoint of U on the class mask, and
    ||Uz - p||^2 = ||Uz||^2 - 2 U(z . p) + ||p||^2
needs, per pixel, the inner products of neighboring cells: one channel each instead of 256. What is at pixel resolution
is read in chunks of rows, so that it never exists as a whole and stays in a processor's cache.
"""

import torch
from torch import Tensor

from domainbridge.ops.upsample import LazyUpsample, interpolation_matrix, source_rows

__all__ = ["PrototypeDistances", "class_sums"]


def class_sums(features: Tensor, prediction: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Per image and class: the sum of the upsampled features over the pixels predicted as that class.

    Args:
        features: (batch, channels, h, w).
        prediction: int64 (batch, height, width), each value below ``num_classes``.
        num_classes: K.

    Returns:
        sums, float32 (batch, K, channels), and pixel counts, float32 (batch, K).
    """
    height, width = prediction.shape[-2:]
    rows = interpolation_matrix(features.shape[-2], height, features.device)
    columns = interpolation_matrix(features.shape[-1], width, features.device)
    classes = torch.arange(num_classes, device=features.device)
    masks = (prediction[:, None] == classes[:, None, None]).float()
    share = rows.T @ (masks @ columns)  # the adjoint of U: how much each cell gives to the class's pixels
    return torch.einsum("bkyx,bcyx->bkc", share, features.float()), masks.sum((2, 3))


class PrototypeDistances:
    """Euclidean distances of upsampled features to prototypes, read a few rows of pixels at a time."""

    def __init__(self, features: Tensor, prototypes: Tensor, size: tuple[int, int]) -> None:
        """Everything that can be done at the features' resolution.

        Args:
            features: (batch, channels, h, w).
            prototypes: float32 (classes, channels).
            size: (height, width) to upsample to.
        """
        features = features.float()
        # U keeps constants, so shifting both by one vector changes no distance, but it removes the large common
        # part that float32 would otherwise cancel.
        center = prototypes.mean(0)
        features = features - center[:, None, None]
        prototypes = prototypes - center
        # For the same reason ||p||^2 may be added before the upsampling.
        inner = torch.einsum("bchw,kc->bkhw", features, -2 * prototypes) + prototypes.square().sum(1)[:, None, None]
        self.inner = LazyUpsample(inner, size)
        self._prepare_squares(features, size)

    def _prepare_squares(self, features: Tensor, size: tuple[int, int]) -> None:
        """||Uz||^2 from inner products of neighboring cells, enlarged along the width."""
        height, width = features.shape[-2:]
        columns, column_pairs = _square_weights(interpolation_matrix(width, size[1], features.device))
        self.squares, self.pairs = _square_weights(interpolation_matrix(height, size[0], features.device))
        right = (features[..., :-1] * features[..., 1:]).sum(1)
        below = (features[..., :-1, :] * features[..., 1:, :]).sum(1)
        down_right = (features[..., :-1, :-1] * features[..., 1:, 1:]).sum(1)
        down_left = (features[..., :-1, 1:] * features[..., 1:, :-1]).sum(1)
        self.within_row = features.square().sum(1) @ columns.T + right @ column_pairs.T
        self.between_rows = below @ columns.T + ((down_right + down_left) / 2) @ column_pairs.T

    def rows(self, rows: slice) -> Tensor:
        """Distances of some rows of pixels, float32 (batch, classes, number of rows, width)."""
        cells = source_rows(self.squares.shape, rows)
        gaps = slice(cells.start, cells.stop - 1)
        squared = self.squares[rows, cells] @ self.within_row[:, cells]
        squared = squared + self.pairs[rows, gaps] @ self.between_rows[:, gaps]
        return self.inner.rows(rows).add_(squared[:, None]).clamp_min_(0).sqrt_()


def _square_weights(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the squares of cells, and of twice the products of each cell with its next one."""
    return matrix.square(), 2 * matrix[:, :-1] * matrix[:, 1:]
