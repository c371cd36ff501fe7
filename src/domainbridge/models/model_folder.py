"""A MODEL folder: ``model.safetensors`` and ``config.json`` (architecture, label space, preprocessing)."""

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from domainbridge.data.bands import ImageRule
from domainbridge.data.training_sizes import TrainingSizes
from domainbridge.errors import ModelError, problem_list
from domainbridge.files import file_checksum, write_file, write_text
from domainbridge.models.backbones.base import normalization_of
from domainbridge.models.heads.base import HEADS, HeadSpec
from domainbridge.models.licenses import InitialWeights, all_weights_from_json, weights_from_json
from domainbridge.models.pretrained import check_weights, load_checked
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter

__all__ = [
    "DESCRIPTION",
    "WEIGHTS",
    "ModelConfig",
    "load_model",
    "publish_model",
    "read_model_config",
    "save_model",
    "verify_model",
]

WEIGHTS, DESCRIPTION = "model.safetensors", "config.json"
_FORMAT = 1
_RESTORE = "restore the file, or copy the model folder again"
_ROUNDED = 1e-6
"""Means and deviations are written from float32."""
_LARGEST_SIDE = 16_384
"""Pixels per side that a description may ask images to be resized to."""
_MOST_DILATIONS = 64


@dataclass(frozen=True)
class ModelConfig:
    """What a model folder says about its weights.

    Attributes:
        spec: the architecture.
        label_space: name of the space of its classes.
        classes: K names.
        colors: K RGB triples.
        resize: (width, height, keep_ratio, min_side) applied before the network, or None for the stored size.
        image: how image files become 8-bit RGB, for files of more than 8 bits or other bands.
        initial_weights: what the training began with, and its license; None for random weights, or where nothing is
            known.
        training_sizes: of the images of training; None where nothing is known. Changes no result of the model, so the
            ``repr``, from which results are told apart, leaves the sizes out.
        teacher_weights: what networks that taught this one began with, where these are other weights; likewise.
        pad: whether images whose sides the largest stride does not divide are continued for the network; False: the
            network was trained or is scored without, so the logits are stretched.
    """

    spec: ModelSpec
    label_space: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    resize: tuple[int, int, bool, int | None] | None
    image: ImageRule = ImageRule()
    initial_weights: InitialWeights | None = None
    training_sizes: TrainingSizes | None = field(default=None, repr=False)
    teacher_weights: tuple[InitialWeights, ...] = field(default=(), repr=False)
    pad: bool = field(default=True, repr=False)


def save_model(folder: Path, model: Segmenter, config: ModelConfig) -> None:
    """Write both files, each atomically, the description last: a folder with one is complete.

    The description holds the SHA-256 of the weight file.

    Raises:
        StorageError: one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    checksums = []

    def save(temporary: Path) -> None:
        save_file(weights, temporary)
        checksums.append(file_checksum(temporary))

    write_file(folder / WEIGHTS, save)
    content = {"format": _FORMAT, **asdict(config), "mean": model.mean.flatten().tolist()}
    for name in ("initial_weights", "training_sizes", "teacher_weights"):
        if not content[name]:
            del content[name]
    if config.pad:
        del content["pad"]
    content["std"] = model.std.flatten().tolist()
    content["sha256"] = checksums[-1]
    write_text(folder / DESCRIPTION, json.dumps(content, indent=1) + "\n")


def publish_model(model: Path, destination: Path) -> None:
    """Copy a model folder that is whole; the description goes last. Nothing is written if the copy is there already.

    Raises:
        ModelError: the folder is incomplete, or its weights do not have the checksum of their description.
        StorageError: the copy cannot be written.
    """
    verify_model(model)
    with suppress(ModelError, OSError):
        if (destination / DESCRIPTION).read_bytes() == (model / DESCRIPTION).read_bytes():
            verify_model(destination)
            return
    destination.mkdir(exist_ok=True)
    for name in (WEIGHTS, DESCRIPTION):
        write_file(destination / name, partial(shutil.copyfile, model / name))


def verify_model(folder: Path) -> None:
    """See that a model folder is as it was written. Folders of older versions and other tools have no checksum.

    Raises:
        ModelError: a file is missing, the description cannot be read, or the weights have changed.
    """
    read_model_config(folder)
    _verify_weights(folder)


def _verify_weights(folder: Path) -> None:
    path = folder / WEIGHTS
    try:
        expected = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")).get("sha256")
        actual = file_checksum(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read as weights ({error.strerror}); {_RESTORE}") from error
    if expected is not None and expected != actual:
        raise ModelError(
            f"{path}: damaged: the content does not have the checksum that {DESCRIPTION} names; {_RESTORE}"
        )


def read_model_config(folder: Path) -> ModelConfig:
    """The description of a model folder.

    Raises:
        ModelError: no model folder, or not one of this format.
    """
    path = folder / DESCRIPTION
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
            resize=tuple(content["resize"]) if content["resize"] is not None else None,
            image=ImageRule.from_json(content.get("image", {})),
            initial_weights=weights_from_json(content.get("initial_weights")),
            training_sizes=TrainingSizes.from_json(content.get("training_sizes")),
            teacher_weights=all_weights_from_json(content.get("teacher_weights", [])),
            pad=bool(content.get("pad", True)),
        )
        problems = _contradictions(config, content)
    except KeyError as error:
        raise ModelError(f"{path}: not a model description: {error} is missing or wrong; {_RESTORE}") from error
    except ModelError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
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
    problems += _problems_of_head(head) + _problems_of_resize(config.resize)
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


def _problems_of_head(head: HeadSpec) -> list[str]:
    problems = []
    if head.kind not in HEADS.names():
        problems.append(f"head {head.kind!r} is unknown; known are {', '.join(HEADS.names())}")
    if not 1 <= len(head.dilations) <= _MOST_DILATIONS:
        problems.append(f"{len(head.dilations)} dilations; expected 1 to {_MOST_DILATIONS}")
    if type(head.dropout) not in (int, float) or not 0 <= head.dropout < 1:
        problems.append(f"dropout {head.dropout!r} is not a number from 0 to below 1")
    return problems


def _problems_of_resize(resize: object) -> list[str]:
    """What is wrong with (width, height, keep_ratio, min_side)."""
    if resize is None:
        return []
    form = "expected [width, height, true or false, shortest side or null]"
    if not isinstance(resize, tuple) or len(resize) != 4 or type(resize[2]) is not bool:
        return [f"resize {resize!r}: {form}"]
    width, height, _, shortest = resize
    sides = [width, height] if shortest is None else [width, height, shortest]
    if not all(type(side) is int and 1 <= side <= _LARGEST_SIDE for side in sides):
        return [f"resize {list(resize)}: sides must be whole numbers from 1 to {_LARGEST_SIDE}"]
    return []


def load_model(folder: Path, device: torch.device | None = None) -> tuple[Segmenter, ModelConfig]:
    """The network of a model folder, in evaluation mode, with its description.

    Raises:
        ModelError: as for :func:`read_model_config`, or the weights do not fit the description.
    """
    config = read_model_config(folder)
    path = folder / WEIGHTS
    _verify_weights(folder)
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read as weights: {error}; {_RESTORE}") from error
    try:
        with torch.device("meta"):  # a description of another network may be of any size
            expected = build_segmenter(config.spec)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        if isinstance(error, ModelError):
            raise
        reason = str(error).splitlines()[0]
        raise ModelError(f"{folder / DESCRIPTION}: describes no network ({reason}); {_RESTORE}") from error
    check_weights(expected, weights, str(path))
    model = build_segmenter(config.spec)
    load_checked(model, weights, str(path))
    return model.to(device or torch.device("cpu")).eval(), config
