"""A MODEL folder: ``model.safetensors`` and ``config.json`` (architecture, label space, preprocessing)."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from domainbridge.errors import ModelError, problem_list
from domainbridge.files import write_file, write_text
from domainbridge.models.backbones.base import normalization_of
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.pretrained import load_checked
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter

__all__ = ["ModelConfig", "load_model", "read_model_config", "save_model"]

_FORMAT = 1
_RESTORE = "restore the file, or copy the model folder again"
_ROUNDED = 1e-6
"""Means and deviations are written from float32."""


@dataclass(frozen=True)
class ModelConfig:
    """What a model folder says about its weights.

    Attributes:
        spec: the architecture.
        label_space: name of the space of its classes.
        classes: K names.
        colors: K RGB triples.
        resize: (width, height, keep_ratio, min_side) applied before the network, or None for the stored size.
    """

    spec: ModelSpec
    label_space: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    resize: tuple[int, int, bool, int | None] | None


def save_model(folder: Path, model: Segmenter, config: ModelConfig) -> None:
    """Write both files, each atomically, the description last: a folder with one is complete.

    Raises:
        StorageError: one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_file(folder / "model.safetensors", lambda temporary: save_file(weights, temporary))
    content = {"format": _FORMAT, **asdict(config), "mean": model.mean.flatten().tolist()}
    content["std"] = model.std.flatten().tolist()
    write_text(folder / "config.json", json.dumps(content, indent=1) + "\n")


def read_model_config(folder: Path) -> ModelConfig:
    """The description of a model folder.

    Raises:
        ModelError: no model folder, or not one of this format.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder}: not a model folder (no config.json); a run writes one at RUN/model")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise KeyError(f"format {content['format']}; this version reads format {_FORMAT}")
        spec = content["spec"]
        head = spec["head"]
        config = ModelConfig(
            spec=ModelSpec(**{**spec, "head": HeadSpec(**{**head, "dilations": tuple(head["dilations"])})}),
            label_space=content["label_space"],
            classes=tuple(content["classes"]),
            colors=tuple((r, g, b) for r, g, b in content["colors"]),
            resize=tuple(content["resize"]) if content["resize"] else None,
        )
        problems = _contradictions(config, content)
    except KeyError as error:
        raise ModelError(f"{path}: not a model description: {error} is missing or wrong; {_RESTORE}") from error
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: not a model description ({error}); {_RESTORE}") from error
    if problems:
        raise ModelError(problem_list(f"{path}: contradicts itself; {_RESTORE}", problems))
    return config


def _contradictions(config: ModelConfig, content: dict[str, Any]) -> list[str]:
    """What an edited or damaged description says that cannot be."""
    spec, head = config.spec, config.spec.head
    numbers = (spec.output_stride, spec.num_classes, head.channels, head.skip_channels, *head.dilations)
    problems = [
        f"{number!r} is not a positive whole number" for number in numbers if type(number) is not int or number < 1
    ]
    if not len(config.classes) == len(set(config.classes)) == len(config.colors) == spec.num_classes:
        problems.append(
            f"{spec.num_classes} outputs, {len(config.classes)} class names ({len(set(config.classes))} different) "
            f"and {len(config.colors)} colors; all must be as many"
        )
    if not all(type(channel) is int and 0 <= channel <= 255 for color in config.colors for channel in color):
        problems.append("colors must be three whole numbers from 0 to 255 each")
    mean, std = (list(values) for values in normalization_of(spec.backbone))
    for name, expected in (("mean", mean), ("std", std)):
        given = content[name]
        if len(given) != len(expected) or any(abs(a - b) > _ROUNDED for a, b in zip(given, expected, strict=True)):
            problems.append(f"{name} {given} is not that of {spec.backbone}, {expected}")
    return problems


def load_model(folder: Path, device: torch.device | None = None) -> tuple[Segmenter, ModelConfig]:
    """The network of a model folder, in evaluation mode, with its description.

    Raises:
        ModelError: as for :func:`read_model_config`, or the weights do not fit the description.
    """
    config = read_model_config(folder)
    model = build_segmenter(config.spec)
    path = folder / "model.safetensors"
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read as weights: {error}") from error
    load_checked(model, weights, str(path))
    return model.to(device or torch.device("cpu")).eval(), config
