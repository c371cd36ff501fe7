"""A score without labels of a network in training, from a few target images: for early stopping."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from domainbridge.data.dataset import Dataset, ahead, evenly_spread
from domainbridge.evaluation.confusion import confusion_matrix
from domainbridge.evaluation.grid import image_on, on_grid
from domainbridge.evaluation.label_free import chance_corrected_agreement
from domainbridge.evaluation.shifts import TARGET_JITTER, jittered
from domainbridge.models.segmenter import Segmenter
from domainbridge.runtime.device import Runtime
from domainbridge.runtime.memory import enough_memory
from domainbridge.seeding import torch_generator

__all__ = ["target_score"]

_ADVICE = "A smaller crop does not help: whole images pass the network. Leave training.early_stopping out"


# Not inference mode: an interpolation matrix that is made here is kept and used in training too.
@torch.no_grad()
def target_score(
    model: Segmenter, datasets: Sequence[Dataset], count: int, score: str, runtime: Runtime, seed: int
) -> float:
    """The mean of a score over datasets, in percent, on the images and pixels of a finished stage's scores.

    Args:
        model: on the runtime's device; its modules are in evaluation mode meanwhile.
        datasets: of the targets.
        count: of images per dataset, evenly spread; the runtime's processes share the images.
        score: jitter_kappa or flip_kappa, see
            :func:`domainbridge.evaluation.label_free.chance_corrected_agreement`.
        runtime: see there.
        seed: of the recipe; the jitter of an image is the same in every call.

    Raises:
        TrainingError: an image does not fit into the device's memory.
    """
    changed = _CHANGED[score]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    kinds, processes, values = model.head.classifier.out_channels, runtime.processes, []
    try:
        for dataset in datasets:
            matrix = torch.zeros(kinds, kinds, dtype=torch.int64, device=runtime.device)
            mine = evenly_spread(len(dataset), count)[processes.rank :: processes.count]
            for index, sample in zip(mine, ahead(dataset, mine), strict=True):
                generator = torch_generator(seed, "label-free", "target", index)
                with enough_memory(f"the look at {sample.name}", _ADVICE):
                    image = image_on(runtime.device, sample.image)
                    # Not the compiled network, which would be compiled again for every size of an image.
                    pair = (_classes(model.forward(image).logits, image), changed(model, image, generator))
                matrix += confusion_matrix(*pair, kinds)[:, :-1]
            values.append(chance_corrected_agreement(processes.all_reduce_sum(matrix)))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return sum(values) / len(values)


def _classes(logits: Tensor, image: Tensor) -> Tensor:
    return on_grid(logits, image).argmax(0)


def _jittered(model: nn.Module, image: Tensor, generator: torch.Generator) -> Tensor:
    return _classes(model.forward(jittered(image, generator, TARGET_JITTER)).logits, image)


def _mirrored(model: nn.Module, image: Tensor, _: torch.Generator) -> Tensor:
    return _classes(model.forward(image.flip(3)).logits.flip(3), image)


_CHANGED: dict[str, Callable[[nn.Module, Tensor, torch.Generator], Tensor]] = {
    "jitter_kappa": _jittered,
    "flip_kappa": _mirrored,
}
"""Score -> classes of a changed image (1, 3, height, width) at its compared pixels, int64 (h, w)."""
