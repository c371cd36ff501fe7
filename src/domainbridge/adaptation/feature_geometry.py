"""Class means of, and distances in, upsampled features, without upsampling the features (METHOD section 8.5).

Bilinear upsampling U is linear, separable and keeps constants: (Uz)(Y, X) = sum_yx Uy[Y, y] Ux[X, x] z(y, x).
So a class mean needs only the adjoint of U on the class mask, and
    ||Uz - p||^2 = ||Uz||^2 - 2 U(z . p) + ||p||^2
needs, per pixel, the inner products of neighbouring cells: one channel each instead of 256.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbridge.models.segmenter import upsample

__all__ = ["class_sums", "interpolation_matrix", "prototype_distances"]


@lru_cache(maxsize=16)
def interpolation_matrix(cells: int, pixels: int, device: torch.device) -> Tensor:
    """U along one axis, float32 (pixels, cells): rows of weights that sum to 1, at most two neighbours each."""
    identity = torch.eye(cells, device=device)[:, None]
    return F.interpolate(identity, pixels, mode="linear", align_corners=False)[:, 0].T.contiguous()


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


def prototype_distances(features: Tensor, prototypes: Tensor, size: tuple[int, int]) -> Tensor:
    """Euclidean distances of the upsampled pixel features to each prototype.

    Args:
        features: (batch, channels, h, w).
        prototypes: float32 (classes, channels).
        size: (height, width) to upsample to.

    Returns:
        float32 (batch, classes, height, width).
    """
    # Mixed precision would lose the difference of the large squares.
    with torch.autocast(features.device.type, enabled=False):
        return _distances(features.float(), prototypes, size)


def _distances(features: Tensor, prototypes: Tensor, size: tuple[int, int]) -> Tensor:
    # U keeps constants, so shifting both by one vector changes no distance, but it removes the large common
    # part that float32 would otherwise cancel.
    centre = prototypes.mean(0)
    features = features - centre[:, None, None]
    prototypes = prototypes - centre
    inner = torch.einsum("bchw,kc->bkhw", features, prototypes)
    squared = _upsampled_squared_norm(features, size)[:, None] - 2 * upsample(inner, size)
    return (squared + prototypes.square().sum(1)[:, None, None]).clamp_min_(0).sqrt_()


def _upsampled_squared_norm(features: Tensor, size: tuple[int, int]) -> Tensor:
    """||(Uz)(Y, X)||^2, (batch, height, width), from inner products of neighbouring cells."""
    height, width = features.shape[-2:]
    rows, row_pairs = _square_weights(interpolation_matrix(height, size[0], features.device))
    columns, column_pairs = _square_weights(interpolation_matrix(width, size[1], features.device))
    right = (features[..., :-1] * features[..., 1:]).sum(1)
    below = (features[..., :-1, :] * features[..., 1:, :]).sum(1)
    falling = (features[..., :-1, :-1] * features[..., 1:, 1:]).sum(1)
    rising = (features[..., :-1, 1:] * features[..., 1:, :-1]).sum(1)
    squared = rows @ features.square().sum(1) @ columns.T + rows @ right @ column_pairs.T
    squared = squared + row_pairs @ below @ columns.T
    return squared + row_pairs @ ((falling + rising) / 2) @ column_pairs.T


def _square_weights(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the squares of cells, and of twice the products of each cell with its next one."""
    return matrix.square(), 2 * matrix[:, :-1] * matrix[:, 1:]
