"""Weight files under timm's names, or their authors', as the weights of a backbone.

timm's own filters do the work: other names, position embeddings of another size, patches of another size.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor, nn

from domainbridge.errors import ModelError

__all__ = ["TimmBuild", "body_weights"]

_FLATTENED = re.compile(r"^(\w+?)_(\d+)\.")
_FEATURES_ONLY = {"features_only", "out_indices", "output_stride", "num_classes", "pretrained"}


@dataclass(frozen=True)
class TimmBuild:
    """How timm made a network.

    Attributes:
        name: timm's.
        arguments: of ``timm.create_model``.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


def body_weights(body: nn.Module, build: TimmBuild, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The weights of an extractor, from those of the whole classifier that the extractor was cut from.

    Args:
        body: the extractor; unchanged.
        build: how ``body`` was made.
        tensors: of the file; those of the last, classifying layer are not used and may be missing.
        where: for messages.

    Returns:
        Weights by the names of ``body``; a name that the classifier lacks is left out.

    Raises:
        ModelError: the file is of another architecture.
    """
    arguments = {key: value for key, value in build.arguments.items() if key not in _FEATURES_ONLY}
    with torch.device("meta"):
        empty = timm.create_model(build.name, pretrained=False, **arguments)
    last = _classifier_names(empty.pretrained_cfg.get("classifier"))  # type: ignore[union-attr,operator]
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith(last)}
    given |= {name: torch.zeros(value.shape) for name, value in empty.state_dict().items() if name.startswith(last)}
    overlay = {"state_dict": given, "custom_load": False}
    try:
        with torch.random.fork_rng(devices=[]):
            whole = timm.create_model(build.name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    except (RuntimeError, KeyError, ValueError, AssertionError, AttributeError, TypeError) as error:
        lines = "; ".join(line.strip() for line in str(error).splitlines()[:3])
        raise ModelError(f"{where}: weights of another architecture than {build.name}: {lines[:600]}") from error
    state = whole.state_dict()
    sources = {name: _source(name, state) for name in body.state_dict()}
    return {name: state[source] for name, source in sources.items() if source is not None}


def _classifier_names(classifier: str | tuple[str, ...] | None) -> tuple[str, ...]:
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    return tuple(f"{name}." for name in names)


def _source(name: str, state: Mapping[str, Tensor]) -> str | None:
    """The whole network's name of an extractor's weight: sequences are flattened, or the network has a name."""
    names = (name, name.removeprefix("model."), _FLATTENED.sub(r"\1.\2.", name, count=1))
    return next((each for each in names if each in state), None)
