"""Models to and from the Hugging Face hub, and MODEL arguments that may name one there."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from domainbridge.errors import HubError, ModelError, problem_list
from domainbridge.files import write_file
from domainbridge.models.card_file import CARD, front_matter, with_front_matter
from domainbridge.models.model_folder import DESCRIPTION, WEIGHTS, publish_model, verify_model
from domainbridge.tools.hub_client import NAME, fetch, hub_package, parse_name
from domainbridge.tools.hub_license import sharing_terms

__all__ = ["Pushed", "local_model", "pull", "push"]

_FILES = (CARD, WEIGHTS, DESCRIPTION)
"""All that is sent and fetched: no code, no records of the run."""


@dataclass(frozen=True)
class Pushed:
    """What was sent.

    Attributes:
        url: page of the commit.
        commit: its number.
    """

    url: str
    commit: str


def local_model(model: Path | str) -> Path:
    """The folder of a model: the given one, or that of a model of the hub, fetched into the cache when needed.

    Only ``USER/NAME`` or ``USER/NAME@REVISION`` names a model of the hub, and only where neither the path nor its first
    folder exists here: an existing folder never costs a network access.

    Raises:
        ModelError: no such model.
        HubError: the hub cannot be reached, or huggingface_hub is not installed.
    """
    path = Path(model)
    match = NAME.fullmatch(model if isinstance(model, str) else path.as_posix())
    if match is None or path.exists() or path.parent.exists():
        return path
    try:
        return fetch(match[1], match[2])
    except HubError as error:
        raise HubError(f"{path}: no such folder here, and as a model of the hub: {error}") from error


def pull(name: str, out: Path) -> Path:
    """Fetch a model of the hub into a folder; its path.

    Args:
        name: USER/NAME or USER/NAME@REVISION.
        out: new or empty folder; a folder with the same model is left as it is.

    Raises:
        ModelError: no such model, not one of domainbridge, or ``out`` holds something else; nothing was changed.
        HubError: the hub cannot be reached, or huggingface_hub is not installed.
        StorageError: the folder cannot be written.
    """
    repository, revision = parse_name(name)
    if out.exists() and not out.is_dir():
        raise ModelError(f"{out}: expected a folder, found a file; give another --out DIR")
    folder = fetch(repository, revision)
    if out.exists() and not _may_fill(out, folder):
        raise ModelError(f"{out}: not empty, and holds another model or other files; give another --out DIR")
    out.mkdir(parents=True, exist_ok=True)
    if (folder / CARD).is_file() and not (out / CARD).exists():
        write_file(out / CARD, partial(shutil.copyfile, folder / CARD))
    publish_model(folder, out)
    return out


def _may_fill(out: Path, folder: Path) -> bool:
    """Whether a folder is empty, or holds the same model, or the first files of the same model: a pull was stopped."""
    names = {path.name for path in out.iterdir()}
    ours = {name for name in _FILES if (out / name).is_file() and (folder / name).is_file()}
    same = {name for name in ours if (out / name).read_bytes() == (folder / name).read_bytes()}
    return DESCRIPTION in same or names == same


def push(
    model: Path,
    name: str,
    *,
    public: bool = False,
    license_id: str | None = None,
    replace: bool = False,
    dry_run: bool = False,
    confirm: Callable[[str], bool] = lambda question: False,
    report: Callable[[str], None] = lambda _: None,
) -> Pushed | None:
    """Send a model folder with its card to the hub, as a commit; None for a dry run.

    Args:
        model: path to the folder.
        name: USER/NAME.
        public: whether everybody may read a new repository; else it is private.
        license_id: license of the model, written into the card that is sent.
        replace: whether a model that is there already gets a new commit.
        dry_run: check and report everything that needs no network, and send nothing.
        confirm: asked whether to go on, with what is doubtful about licenses.
        report: gets a line for each file and for what is special.

    Raises:
        ModelError: no whole model, no card, licenses that forbid sharing or were not confirmed, a repository that is
            there already or readable by others than asked for; nothing was sent.
        HubError: the hub cannot be reached or refuses, or huggingface_hub is not installed.
    """
    repository, revision = parse_name(name)
    if revision is not None:
        raise ModelError(f"{name}: a push goes to the main branch; give USER/NAME")
    verify_model(model)
    card = _card(model, license_id)
    _check_terms(model, front_matter(card, str(model / CARD)), repository, public, confirm, report)
    sizes = {CARD: len(card.encode()), **{each: (model / each).stat().st_size for each in (DESCRIPTION, WEIGHTS)}}
    for each, size in sizes.items():
        report(f"{each}: {size:,} bytes")
    if dry_run:
        report(f"dry run: nothing was sent to {repository} ({'public' if public else 'private'})")
        return None
    return _commit(
        repository, {CARD: card.encode(), **{each: model / each for each in (DESCRIPTION, WEIGHTS)}}, public, replace
    )


def _card(model: Path, license_id: str | None) -> str:
    """The text of the card that is sent."""
    path = model / CARD
    if not path.is_file():
        raise ModelError(f"{path}: no model card, so the model is not sent; `domainbridge hub card {model}` writes one")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not a text in UTF-8 ({error.reason}); save the card again") from error
    content = front_matter(text, str(path))
    if not content:
        raise ModelError(
            f"{path}: no metadata at its head (lines between '---'); `domainbridge hub card {model}` writes a card"
        )
    if license_id is None:
        return text
    content = {key: value for key, value in content.items() if key not in ("license_name", "license_link")}
    return with_front_matter(text, {**content, "license": license_id})


def _check_terms(
    model: Path,
    card: Mapping[str, Any],
    repository: str,
    public: bool,
    confirm: Callable[[str], bool],
    report: Callable[[str], None],
) -> None:
    """Refuse, or ask: a private copy is the user's affair, a public one everybody's."""
    terms = sharing_terms(dict(card))
    questions = list(terms.questions)
    if public:
        if terms.forbidden:
            raise ModelError(
                f"{repository}: not sent: licenses forbid that a model made of this is shared: "
                f"{'; '.join(terms.forbidden)}. Without --public the repository is private"
            )
        if terms.chosen is None:
            raise ModelError(
                f"{repository}: not sent: a public model needs a license; give --license ID, e.g. --license cc-by-4.0, "
                f"or write one into {model / CARD}"
            )
    else:
        questions = [f"a license forbids that a model made of this is shared: {part}" for part in terms.forbidden]
        for text in terms.questions:
            report(f"note: {text}; the repository is private")
    if questions and not confirm("\n".join(questions)):
        raise ModelError(
            problem_list(
                f"{repository}: not sent, because nobody confirmed (--yes, after reading the licenses):", questions
            )
        )


def _commit(repository: str, contents: Mapping[str, bytes | Path], public: bool, replace: bool) -> Pushed:
    with hub_package(repository) as hub:
        api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="domainbridge")
        try:
            info = api.model_info(repository)
        except hub.errors.RepositoryNotFoundError:
            info = None
        if info is None:
            api.create_repo(repository, private=not public)
        else:
            _check_repository(repository, info, public, replace, contents)
        committed = api.create_commit(
            repository,
            [
                hub.CommitOperationAdd(each, str(content) if isinstance(content, Path) else content)
                for each, content in contents.items()
            ],
            commit_message="Model of domainbridge",
            parent_commit=None if info is None else info.sha,
        )
        return Pushed(str(committed.commit_url), str(committed.oid))


def _check_repository(
    repository: str, info: Any, public: bool, replace: bool, contents: Mapping[str, bytes | Path]
) -> None:
    if not public and info.private is False:
        raise ModelError(
            f"{repository}: exists already and is public; nothing was sent. Say --public, or give another name"
        )
    if public and info.private:
        raise ModelError(
            f"{repository}: exists already and is private; nothing was sent. Leave --public out, or give another name"
        )
    there = sorted({each.rfilename for each in info.siblings or ()} & set(contents))
    if there and not replace:
        raise ModelError(
            f"{repository}: exists already and has {', '.join(there)}; nothing was sent. --replace makes a commit with "
            "the new files (the old ones stay in the earlier commit), or give another name"
        )
