"""The package huggingface_hub as one small interface: names, downloads into the cache, failures as one message.

The endpoint is ``$HF_ENDPOINT``, else the public hub; the cache ``$HF_HUB_CACHE``, else that of huggingface_hub. Who
may read and write, huggingface_hub knows (``hf auth login``, ``$HF_TOKEN``); nothing here looks at a token.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from domainbridge.errors import DomainbridgeError, HubError, ModelError
from domainbridge.models.card_file import CARD
from domainbridge.models.model_folder import DESCRIPTION, WEIGHTS, verify_model

__all__ = ["NAME", "fetch", "hub_package", "parse_name"]

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
NAME = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?")
"""USER/NAME, and behind an @ a branch, tag or commit."""
_MISSING = 'huggingface_hub is not installed: pip install "domainbridge[hub]"'
_REFUSED = (401, 403)


def fetch(repository: str, revision: str | None) -> Path:
    """The folder in the cache of a model of the hub, whole."""
    with hub_package(repository) as hub:
        folder = Path(
            hub.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=[CARD, DESCRIPTION, WEIGHTS],
                endpoint=os.environ.get("HF_ENDPOINT"),
                cache_dir=os.environ.get("HF_HUB_CACHE"),
                library_name="domainbridge",
            )
        )
    try:
        verify_model(folder)
    except ModelError as error:
        raise ModelError(f"{repository} on the hub is no model of domainbridge, or a damaged one: {error}") from error
    return folder


def parse_name(name: str) -> tuple[str, str | None]:
    """USER/NAME, and the revision where one is given.

    Raises:
        ModelError: no such form.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise ModelError(f"{name!r}: expected USER/NAME, or USER/NAME@REVISION, of letters, digits and . _ -")
    return match[1], match[2]


@contextmanager
def hub_package(repository: str) -> Iterator[Any]:
    """The package huggingface_hub; its failures and those of the network become one message.

    Raises:
        HubError: not installed, not reached, or refused.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError as error:
        raise HubError(f"{repository}: {_MISSING}") from error
    try:
        yield hub
    except (errors.RepositoryNotFoundError, errors.GatedRepoError, errors.RevisionNotFoundError) as error:
        raise HubError(
            f"{repository}: no such model or revision on the hub, or no right to read or write there; `hf auth login` "
            "or HF_TOKEN says who you are"
        ) from error
    except DomainbridgeError:
        raise
    except (OSError, RuntimeError, ValueError, errors.HfHubHTTPError) as error:
        reasons = [each for each in (error, error.__cause__) if each is not None]
        if any(getattr(getattr(each, "response", None), "status_code", None) in _REFUSED for each in reasons):
            raise HubError(f"{repository}: the hub refuses; `hf auth login` with a token that may write") from error
        lines = [(str(each).strip() or type(each).__name__).splitlines()[0] for each in reasons]
        raise HubError(f"{repository}: the exchange with the hub failed: {'; '.join(lines)}") from error
