"""A self-training step: a moving average parameter by parameter, masks and colors sample by sample."""

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from domainbridge.types import Batch

__all__ = ["SelfTrainingStep", "loss_at_full_size", "photometric"]


def loss_at_full_size(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross entropy of every pixel, weighted afterwards, averaged over all."""
    enlarged = F.interpolate(logits, label.shape[-2:], mode="bilinear", align_corners=False)
    losses = F.cross_entropy(enlarged, label, ignore_index=255, reduction="none")
    return (losses if weight is None else losses * weight).mean()


class SelfTrainingStep:
    """Student, teacher and optimizer; a call is a step."""

    def __init__(
        self, student: nn.Module, teacher: nn.Module, optimizer: torch.optim.Optimizer, path: str = "class"
    ) -> None:
        self.student, self.teacher, self.optimizer, self.path = student, teacher, optimizer, path
        for part in teacher.modules():
            if isinstance(part, _DropoutNd):  # off, while BatchNorm stays in training mode (METHOD section 2)
                part.eval()
        self.number = 0

    def __call__(self, batch: Batch) -> dict[str, float]:
        self._update_teacher()
        self.optimizer.zero_grad()
        source = loss_at_full_size(self.student(batch.source_image).logits, batch.source_label)
        source.backward()
        with torch.no_grad():
            logits = self.teacher(batch.target_image).logits
            enlarged = F.interpolate(logits, batch.target_image.shape[-2:], mode="bilinear", align_corners=False)
            confidence, pseudo = torch.softmax(enlarged, 1).max(1)
        share = (confidence >= 0.968).sum().item() / confidence.numel()
        image, label, weight = self._bridged(batch, pseudo, share)
        bridged = loss_at_full_size(self.student(image).logits, label, weight)
        bridged.backward()
        self.optimizer.step()
        self.number += 1
        return {"source": source.item(), "bridged": bridged.item()}

    def _update_teacher(self) -> None:
        decay = min(1 - 1 / (self.number + 1), 0.99)
        for averaged, values in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            averaged.data[:] = decay * averaged[:].data[:] + (1 - decay) * values[:].data[:]

    def _bridged(self, batch: Batch, pseudo: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        images, labels, weights = [], [], []
        for number in range(len(batch.source_image)):
            values = batch.source_label[number]
            mask = _class_mask(values) if self.path == "class" else _cut_mask(values)
            mixed = mask * batch.source_image[number] + (1 - mask) * batch.target_image[number]
            images.append(photometric(mixed[None]))
            labels.append((mask * values + (1 - mask) * pseudo[number])[None])
            weights.append((mask * torch.ones(values.shape) + (1 - mask) * share)[None])
        return torch.cat(images), torch.cat(labels), torch.cat(weights)


def _class_mask(label: Tensor) -> Tensor:
    classes = torch.unique(label).tolist()
    mask = torch.zeros_like(label)
    for value in random.sample(classes, (len(classes) + 1) // 2):
        mask = mask + (label == value).long()
    return mask


def _cut_mask(label: Tensor, area_share: float = 0.4) -> Tensor:
    height, width = label.shape
    height_share = area_share ** random.random()
    rows, columns = round(height_share * height), round(area_share / height_share * width)
    top, left = round(random.random() * (height - rows)), round(random.random() * (width - columns))
    mask = torch.zeros_like(label)
    mask[top : top + rows, left : left + columns] = 1
    return mask


def photometric(image: Tensor) -> Tensor:
    """Jitter with probability 0.8, blur with probability 0.5; one image of shape (1, 3, height, width)."""
    if random.random() < 0.8:
        adjustments = [_brightness, _contrast, _saturation, _hue]
        random.shuffle(adjustments)
        for adjust in adjustments:
            image = adjust(image)
    if random.random() < 0.5:
        sigma = random.uniform(0.15, 1.15)
        offsets = torch.arange(-25.0, 26.0)
        kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
        weight = (kernel / kernel.sum()).view(1, 1, 1, -1).repeat(3, 1, 1, 1)
        image = F.conv2d(F.pad(image, (25, 25, 0, 0), mode="reflect"), weight, groups=3)
    return image


def _brightness(image: Tensor) -> Tensor:
    return (image + random.uniform(-0.2, 0.2)).clamp(0, 1)


def _contrast(image: Tensor) -> Tensor:
    return (image * random.uniform(0.8, 1.2)).clamp(0, 1)


def _saturation(image: Tensor) -> Tensor:
    hue, saturation, value = _to_hsv(image)
    return _from_hsv(hue, (saturation * random.uniform(0.8, 1.2)).clamp(0, 1), value)


def _hue(image: Tensor) -> Tensor:
    hue, saturation, value = _to_hsv(image)
    return _from_hsv((hue + random.uniform(-0.2, 0.2)) % 1, saturation, value)


def _to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    red, green, blue = image.unbind(1)
    value, index = image.max(1)
    chroma = value - image.min(1).values
    safe = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    sixths = torch.stack([(green - blue) / safe, (blue - red) / safe + 2, (red - green) / safe + 4])
    hue = sixths.gather(0, index[None])[0] / 6 % 1
    return hue, chroma / (value + 1e-8), value


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    sector = torch.floor(hue * 6) % 6
    rest = hue * 6 % 6 - sector
    low, down_right, down_left = (
        value * (1 - saturation),
        value * (1 - rest * saturation),
        value * (1 - (1 - rest) * saturation),
    )
    table = [
        (value, down_left, low),
        (down_right, value, low),
        (low, value, down_left),
        (low, down_right, value),
        (down_left, low, value),
        (value, low, down_right),
    ]
    channels = []
    for channel in range(3):
        result = torch.zeros_like(value)
        for number, row in enumerate(table):
            result = torch.where(sector == number, row[channel], result)
        channels.append(result)
    return torch.stack(channels, 1)
