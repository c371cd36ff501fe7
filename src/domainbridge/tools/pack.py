"""A recipe's domains as shards, and the lines of a recipe that reads them."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import scoring_rule
from domainbridge.build.target_sections import held_out_targets, labeled_sections
from domainbridge.config.domains import ImagesConfig, OracleConfig, TargetConfig, ValidationConfig
from domainbridge.config.schema import Recipe
from domainbridge.data.storage.tar import IMAGE_PATTERN, LABEL_PATTERN, shard_pattern, shards_of, write_shards
from domainbridge.errors import DataError

__all__ = ["pack_domains", "recipe_lines"]


def pack_domains(recipe: Recipe, data: DataSets, out: Path, size: int, announce: Callable[[str], None]) -> None:
    """Write the shards of every source and target, and of the targets' labeled sections, into ``out``.

    Args:
        recipe: with the domains.
        data: their files.
        out: folder.
        size: bytes per shard.
        announce: called with a line per domain.

    Raises:
        DataError: there are shards already, two domains' names are too alike, a file cannot be read, or the disk is
            full.
    """
    roles: dict[str, Iterable[str]] = {
        "source": [source.name for source in recipe.sources],
        "target": [target.name for target in recipe.targets],
        "oracle": data.oracle,
        "validation": data.validation,
        "test": data.test,
    }
    names = [_shards(role, name) for role, domains in roles.items() for name in domains]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"several domains would be called {twice[0]} in file names; rename one in the recipe")
    domains = dict(zip(names, data.domains, strict=True))
    existing = [path for name in domains for path in shards_of(name, out)]
    if existing:
        raise DataError(
            f"{existing[0]}: {len(existing)} shards are there already; delete them, or choose another --out"
        )
    for name, samples in domains.items():
        count = write_shards(samples, name, out, size, lambda done: None)
        announce(f"{samples.name}: {len(samples)} images in {count} shards, {out / name}-*.tar")


def recipe_lines(recipe: Recipe, out: Path) -> str:
    """The recipe's sources and targets as YAML that reads the shards."""
    folder = str(out.absolute())
    sources = [
        {"name": source.name, "root": folder, **_shard_keys(_shards("source", source.name)), **_resize(source)}
        for source in recipe.sources
    ]
    targets: list[dict[str, Any]] = []
    for target in recipe.targets:
        images = {"images": shard_pattern(_shards("target", target.name)), "image_pattern": IMAGE_PATTERN}
        lines: dict[str, Any] = {"name": target.name, "root": folder, **images, **_resize(target)}
        for role, section in _labeled(recipe, target).items():
            lines[role] = {**_shard_keys(_shards(role, target.name)), **_resize(section)}
            if isinstance(section, ValidationConfig):  # labels are stored as scoring reads them
                lines[role] |= {"label_space": scoring_rule(recipe).space.name, "label_scale": section.label_scale}
        targets.append(lines)
    return yaml.safe_dump({"sources": sources, "targets": targets}, sort_keys=False)


def _labeled(recipe: Recipe, target: TargetConfig) -> dict[str, ValidationConfig | OracleConfig]:
    """The target's labeled sections; held-out images become a section of their own."""
    sections = labeled_sections(target, oracle=recipe.oracle)
    if target.name in held_out_targets(recipe):
        sections["test"] = sections["validation"]
    return sections


def _shard_keys(shards: str) -> dict[str, str]:
    files = shard_pattern(shards)
    return {"images": files, "image_pattern": IMAGE_PATTERN, "labels": files, "label_pattern": LABEL_PATTERN}


def _resize(domain: ImagesConfig) -> dict[str, Any]:
    return {} if domain.resize is None else {"resize": domain.resize.model_dump(exclude_none=True)}


def _shards(role: str, name: str) -> str:
    """What a domain's shards are called; domains of one name in different roles stay apart."""
    return f"{role}-{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}"
