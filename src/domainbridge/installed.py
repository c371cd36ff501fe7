"""What is installed: version and commit of this package, and which packages its extras lack."""

import json
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["EXTRAS", "Extra", "extras", "first_line", "installed_version", "package_commit", "version_text"]

EXTRAS = {
    "annotations": "polygons in COCO, CVAT and Label Studio files",
    "cpu-demo": "ImageNet weights of efficientnet_lite0, for the quickstart",
    "dev": "tests and checks of this project",
    "docs": "the documents as a site",
    "efficientnet": "another name of cpu-demo",
    "export": "models as ONNX files, also int8",
    "geotiff": "GeoTIFF images and images of many bands",
    "hub": "models from and to the Hugging Face hub",
    "mlflow": "runs in MLflow",
    "onnx": "predict and serve with ONNX files",
    "serve": "a model behind HTTP",
    "wandb": "runs in Weights & Biases",
}
"""Extra -> what it is for."""
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Extra:
    """An optional part of the installation.

    Attributes:
        name: in ``pip install 'domainbridge[NAME]'``.
        purpose: what it is for; empty when unknown.
        versions: package -> installed version, of the packages that are there and fit.
        missing: requirements such as ``wandb>=0.17`` that are not met.
    """

    name: str
    purpose: str
    versions: dict[str, str]
    missing: tuple[str, ...]


def extras(distribution: metadata.Distribution | None = None) -> list[Extra]:
    """The extras that the installed package declares, by name.

    Args:
        distribution: default: this package's; without one, as in a folder on PYTHONPATH, there are no extras.
    """
    try:
        distribution = distribution or metadata.distribution("domainbridge")
    except metadata.PackageNotFoundError:
        return []
    requirements = [Requirement(text) for text in distribution.requires or ()]
    names = distribution.metadata.get_all("Provides-Extra") or []
    return [_extra(name, requirements) for name in sorted(names)]


def _extra(name: str, requirements: list[Requirement]) -> Extra:
    versions, missing = {}, []
    for requirement in requirements:
        marker = requirement.marker
        if marker is None or not marker.evaluate({"extra": name}) or marker.evaluate({"extra": ""}):
            continue
        version = installed_version(requirement.name)
        if version is not None and requirement.specifier.contains(version, prereleases=True):
            versions[requirement.name] = version
        else:
            missing.append(f"{requirement.name}{requirement.specifier}")
    return Extra(name, EXTRAS.get(name, ""), versions, tuple(missing))


def version_text(version: str) -> str:
    """The version, and the commit where one is known."""
    commit = package_commit()
    return f"domainbridge {version}" + ("" if commit is None else f" (commit {commit[:12]})")


def package_commit() -> str | None:
    """The commit that the package is of: of a checkout, or as pip recorded it; None where nobody knows."""
    checkout = _PACKAGE.parents[1]
    if (checkout / ".git").exists():
        return first_line(["git", "-C", str(checkout), "rev-parse", "HEAD"])
    try:
        # PEP 610: how pip was told to install the package, with the commit of a version control system.
        recorded = metadata.distribution("domainbridge")
        place = Path(str(recorded.locate_file("domainbridge")))
        commit = json.loads(recorded.read_text("direct_url.json") or "{}").get("vcs_info", {}).get("commit_id")
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return None
    return commit if isinstance(commit, str) and place.resolve() == _PACKAGE.resolve() else None


def first_line(command: list[str]) -> str | None:
    """The first line that a command prints; None where it fails or does not exist."""
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        return None
    return printed[0].strip()


def installed_version(name: str) -> str | None:
    """Of a package; None when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
