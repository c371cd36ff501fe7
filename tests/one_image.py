"""The result for one image, where the product takes several of one size."""

from typing import Any

import numpy as np
import torch

from domainbridge.evaluation.inference import ClassMap, class_maps
from domainbridge.evaluation.inference_rule import InferenceRule


def class_map(
    model: Any, image: np.ndarray, size: tuple[int, int], rule: InferenceRule, device: torch.device, **wanted: bool
) -> ClassMap:
    return class_maps(model, [image], [size], rule, device, **wanted)[0]
