"""A short recipe with comments, from what was found."""

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from domainbridge.data.annotations.reading import BACKGROUND_NAMES, normal
from domainbridge.data.label_spaces import label_space
from domainbridge.data.name_pattern import STEM
from domainbridge.tools.init.inspect import FoundDomain
from domainbridge.tools.init.sizes import Sizes

__all__ = ["classes_of", "domain_name", "recipe_text", "recipe_tree"]

_VOID = ("ignore", "ignored", "void", "unlabeled", "unlabelled")
"""Names, without underscores, that stand for no class."""
_PLAIN = re.compile(r"^[A-Za-z][A-Za-z0-9 _-]*$")


def domain_name(domain: FoundDomain) -> str:
    """The name of a domain: that of its folder, without characters that a recipe's name cannot have."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", domain.root.name).strip("-._+") or "data"


def classes_of(domain: FoundDomain) -> tuple[str, ...]:
    """The classes of a source: of its masks, or the categories of its annotations after "background"."""
    if domain.classes is not None:
        names = tuple(name for name in domain.classes.classes if normal(name) not in _VOID)
        return names if len(names) > 1 else domain.classes.classes
    no_classes = (*BACKGROUND_NAMES, *_VOID)
    return ("background", *dict.fromkeys(name for name in domain.categories if normal(name) not in no_classes))


def recipe_tree(name: str, source: FoundDomain, target: FoundDomain, validation: FoundDomain | None) -> dict[str, Any]:
    """The recipe's keys without sizes, as plain values."""
    return dict(yaml.safe_load(_head(name, source, target, validation)))


def recipe_text(
    name: str, path: Path, source: FoundDomain, target: FoundDomain, validation: FoundDomain | None, sizes: Sizes
) -> str:
    """The whole recipe as YAML."""
    head = _head(name, source, target, validation, sizes)
    warmup, checkpoint = max(sizes.steps // 10, 1), max(min(sizes.steps // 4, 1000), 1)
    names = f"{domain_name(source)} -> {domain_name(target)}"
    return f"""# {names}; written by `domainbridge init` on {date.today().isoformat()}.
#
#   domainbridge data preview {path}     a picture of the images and labels
#   domainbridge data check {path}       every problem with the files, in one pass
#   domainbridge run {path}              all stages; stop and start it as you like
#
# All keys: `domainbridge recipes keys`.
{head}# Sizes for {sizes.machine}: about {_duration(sizes.hours)} in all (`domainbridge plan {path}` says more).
source_only: true
adabn: true
warm_start: true
model:
  backbone: {sizes.backbone}
  weights: {sizes.weights}
  output_stride: {sizes.output_stride}
  head: {{kind: deeplabv3plus, channels: 128, dilations: [1, 2]}}
crop: {{width: {sizes.crop}, height: {sizes.crop}}}
training:
  steps: {sizes.steps}     # of each stage; more steps are better, up to about 40,000
  batch_size: {sizes.batch_size}
  learning_rate: 6.0e-4
  warmup_steps: {warmup}
  checkpoint_every: {checkpoint}
prototypes: {{passes: 1}}
"""


def _head(
    name: str, source: FoundDomain, target: FoundDomain, validation: FoundDomain | None, sizes: Sizes | None = None
) -> str:
    """Name, classes and domains."""
    classes = classes_of(source)
    colors = label_space(name, classes).colors
    if source.classes is not None and source.classes.colors:
        by_name = {label: value for value, label in reversed(source.classes.names.items())}
        colors = tuple((by_name[c] >> 16, by_name[c] >> 8 & 255, by_name[c] & 255) for c in classes)
    lines = [f"name: {_text(name)}", "label_space:", f"  name: {_text(domain_name(source))}"]
    lines += ["  # Names may be changed here and, in the same way, in every label_map below."]
    lines += [f"  classes: [{', '.join(_text(label) for label in classes)}]"]
    lines += [f"  colors: [{', '.join(str(list(color)) for color in colors)}]     # for pictures", "sources:"]
    lines += _domain(source, sizes, "  - ", "    ", classes=classes)
    lines += ["targets:", *_domain(target, sizes, "  - ", "    ")]
    if validation is not None:
        lines += ["    validation:     # labeled target images; only for scores"]
        lines += _domain(validation, None, "      ", "      ", classes=classes, name=False)
    return "\n".join(lines) + "\n"


def _domain(
    domain: FoundDomain,
    sizes: Sizes | None,
    first: str,
    indent: str,
    classes: tuple[str, ...] = (),
    *,
    name: bool = True,
) -> list[str]:
    """The lines of a source, a target or a validation set."""
    folders = domain.folders
    keys = [f"name: {_text(domain_name(domain))}"] if name else []
    keys += [f"root: {_text(str(domain.root))}", f"images: {_text(folders.images)}"]
    if folders.image_pattern != STEM:
        keys.append(f"image_pattern: {_text(folders.image_pattern)}")
    labels = domain.annotations if domain.annotations is not None else folders.labels
    if labels is not None:
        keys.append(f"labels: {_text(labels)}")
    if folders.labels is not None and folders.label_pattern != STEM:
        keys.append(f"label_pattern: {_text(folders.label_pattern)}")
    if domain.split is not None:
        keys.append(f"split: {_text(domain.split)}")
    keys += [f"{key}: {value}" for key, value in domain.keys.items()]
    if sizes is not None and sizes.resize is not None:
        keys.append(f"resize: {{width: {sizes.resize[0]}, height: {sizes.resize[1]}}}")
    lines = [f"{first if position == 0 else indent}{key}" for position, key in enumerate(keys)]
    if domain.classes is not None:
        lines += [f"{indent}label_nearest: true"] if domain.classes.nearest else []
        lines += _label_map(domain, classes, indent)
    return lines


def _label_map(domain: FoundDomain, classes: tuple[str, ...], indent: str) -> list[str]:
    """A line per value, with its share; values without a class of the recipe are ignored."""
    assert domain.classes is not None
    lines = [f"{indent}label_map:"]
    for value, label in domain.classes.names.items():
        share = f"{domain.classes.shares[value]:.1%} of the pixels"
        known = label if label in classes else "ignore"
        reason = "which stands for no class" if normal(label) in _VOID else "which the source does not have"
        comment = share if label in classes else f"{label}, {reason}; {share}"
        lines.append(f"{indent}  {domain.classes.key(value)}: {_text(known)}     # {comment}")
    return lines + [f"{indent}  255: ignore"] * domain.classes.ignore


def _text(text: str) -> str:
    """A text as YAML: quoted wherever a reader or YAML could take it for something else."""
    plain = _PLAIN.match(text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)


def _duration(hours: float) -> str:
    return f"{60 * hours:.0f} minutes" if hours < 2 else f"{hours:.0f} hours"
