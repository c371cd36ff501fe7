"""BatchNorm over the rows of all processes, as published (SyncBN), on GPUs and on CPUs.

torch's own asks the device three times in every forward pass how many rows each process has, and waits; it breaks every
compiled graph, and takes no CPU tensors. Here all processes have equally many rows, so that one collective of a few
numbers per channel is enough in each direction, and nothing waits. The formulas are those of Ioffe and Szegedy
(arXiv 1502.03167), with moments over all rows.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

__all__ = ["SyncBatchNorm2d", "SyncBatchNormAct2d", "synchronize_batchnorm"]

_AXES = (0, 2, 3)
_GROUPS: dict[str, dist.ProcessGroup | None] = {"": None}
"""By name. A layer keeps the name of its group: networks are copied, groups cannot be."""


def synchronize_batchnorm(model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Let every BatchNorm layer of a model normalize with the moments of all processes' rows; names and weights stay.

    Only the class of a layer changes, so that what timm keeps inside its layers (an activation, dropout) stays too.

    Args:
        model: changed in place.
        group: the processes; None: all of them.
    """
    name = "" if group is None else str(group.group_name)
    _GROUPS[name] = group
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d
        elif type(module) is BatchNormAct2d:
            module.__class__ = SyncBatchNormAct2d
        if isinstance(module, SyncBatchNorm2d | SyncBatchNormAct2d):
            module.group_name = name


class SyncBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose batch is that of all processes while it trains; all have equally many rows."""

    group_name = ""

    def forward(self, image: Tensor) -> Tensor:
        """Float (batch, channels, height, width), normalized."""
        return normalize(self, image) if _is_shared(self) else super().forward(image)


class SyncBatchNormAct2d(BatchNormAct2d):
    """timm's BatchNorm with an activation, likewise."""

    group_name = ""

    def forward(self, x: Tensor) -> Tensor:
        """Float (batch, channels, height, width), normalized and activated."""
        if not _is_shared(self):
            return super().forward(x)  # type: ignore[no-any-return,no-untyped-call]
        return self.act(self.drop(normalize(self, x)))  # type: ignore[no-any-return]


def _is_shared(norm: nn.BatchNorm2d) -> bool:
    return norm.training and dist.is_available() and dist.is_initialized() and dist.get_world_size(_group(norm)) > 1


def _group(norm: nn.BatchNorm2d) -> dist.ProcessGroup | None:
    assert isinstance(norm, SyncBatchNorm2d | SyncBatchNormAct2d)
    return _GROUPS[norm.group_name]


def normalize(norm: nn.BatchNorm2d, image: Tensor) -> Tensor:
    """Normalize with the moments of all processes' rows, and let them weigh in the running ones."""
    group = _group(norm)
    output, mean, variance = _Normalize.apply(image, norm.weight, norm.bias, norm.eps, group)
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        rows = image.numel() // image.shape[1] * dist.get_world_size(group)
        share: Tensor | float = 0.0 if norm.momentum is None else norm.momentum
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:  # the plain average over all batches
                share = 1 / norm.num_batches_tracked.float()
        with torch.no_grad():
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * (rows / max(rows - 1, 1)), share)
    return output  # type: ignore[no-any-return]


class _Normalize(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, with moments over all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        here = torch.stack(_moments(image))  # (mean and variance, channels)
        everywhere = here.new_zeros(dist.get_world_size(group), *here.shape)
        everywhere[dist.get_rank(group)] = here
        dist.all_reduce(everywhere, group=group)  # a gathering: all other summands are 0
        means, variances = everywhere.unbind(1)
        mean = means.mean(0)
        # Of the processes' moments, and not E[x^2] - E[x]^2, a small difference of large numbers.
        variance = (variances + (means - mean).square()).mean(0)
        output = F.batch_norm(image, mean, variance, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(image, weight, mean, variance)
        ctx.eps, ctx.group = eps, group
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        image, weight, mean, variance = ctx.saved_tensors
        inverse = (variance + ctx.eps).rsqrt()
        # As if the moments were constants: gradient * weight / sqrt(variance + eps), sum(gradient * x^), sum(gradient).
        # They are given twice, as running and as saved ones: CUDA's kernel for channels_last refuses to do without the
        # saved ones.
        back, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(memory_format=_layout(image)),
            *(image, weight, mean, variance, mean, inverse, False, ctx.eps, [True, True, True]),
        )
        total = torch.stack([of_weight, of_bias]).float()
        dist.all_reduce(total, group=ctx.group)
        # What the moments owe to x: - scale * (mean(gradient) + x^ * mean(gradient * x^)), x^ = (x - mean) * inverse.
        slope, offset = total / (image.numel() // image.shape[1] * dist.get_world_size(ctx.group))
        scale = inverse if weight is None else weight * inverse
        by_image, constant = -scale * slope * inverse, scale * (slope * inverse * mean - offset)
        back = torch.addcmul(back.float(), image.float(), by_image.view(1, -1, 1, 1)) + constant.view(1, -1, 1, 1)
        return back.to(image.dtype), *((None, None) if weight is None else (of_weight, of_bias)), None, None


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, float32 (channels,)."""
    if image.device.type == "cpu" and not torch.compiler.is_compiling():
        # The kernel of torch's own BatchNorm: on CPUs thirty times as fast as var_mean over these axes.
        mean, variance = torch.batch_norm_update_stats(image.float(), None, None, 0.0)
        return mean, variance
    variance, mean = torch.var_mean(image.float(), _AXES, correction=0)
    return mean, variance


def _layout(image: Tensor) -> torch.memory_format:
    channels_last = image.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
