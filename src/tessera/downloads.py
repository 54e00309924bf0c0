"""Files of the Hub, fetched until they are here and are what the Hub says they are.

The Hub's client goes on where a connection was cut, and waits as long as a busy Hub tells it to. It leaves two things
undone, which are done here: what may go well in a moment is tried again after a rest, and what has arrived is held
against the hash that the Hub names, SHA-256 for large files and git's for small ones. A file that has passed stays where
it is, so a run that was stopped fetches only what it still lacks.
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, is_offline_mode

from tessera.files import FULL, sha256_file
from tessera.hub import WAITS, DamagedError, may_pass, retry_after, without_secrets

Fetched = TypeVar("Fetched")

# Seconds after which the Hub is taken not to answer a question about a repository.
PATIENCE = 60

logger = logging.getLogger("tessera")


def patiently(what: str, fetch: Callable[[], Fetched]) -> Fetched:
    """What `fetch` brings; it is called again, after longer and longer rests, as long as its trouble may pass."""
    for wait in WAITS:
        try:
            return fetch()
        except Exception as error:
            if not may_pass(error):
                raise
            rest = max(wait, retry_after(error) or 0)
            reason = without_secrets(f"{type(error).__name__}: {error}")
            logger.warning("%s: trying again in %d s (%s)", what, rest, reason)
            time.sleep(rest)
    return fetch()


def cached(
    repo_id: str, filename: str, *, repo_type: str = "model", revision: str | None = None, **options: Any
) -> str:
    """The path of a file in the cache of the Hub's client, which lies there whole; `options` are those of `hf_hub_download`."""

    def fetch() -> str:
        path = _with_room(
            constants.HF_HUB_CACHE,
            hf_hub_download,
            repo_id,
            filename,
            repo_type=repo_type,
            revision=revision,
            **options,
        )
        file = Path(path)
        if file.is_symlink():
            # The cache calls a file's content by the hash that the Hub gave.
            blob = file.parent / file.readlink()
            _check(file, filename, blob.name, blob, blob.resolve())
        elif not is_offline_mode():
            url = hf_hub_url(
                repo_id, filename, subfolder=options.get("subfolder"), repo_type=repo_type, revision=revision
            )
            _check(file, filename, get_hf_file_metadata(url).etag)
        return path

    return patiently(f"{repo_id}/{filename}", fetch)


def model_files(repo: str, revision: str, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Fetch the wanted files of a model's repository into `folder`, which keeps notes of what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    info = patiently(repo, lambda: HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=PATIENCE))
    hashes = {
        file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id
        for file in info.siblings or []
        if wanted(file.rfilename)
    }
    for filename, named in sorted(hashes.items()):
        patiently(f"{repo}/{filename}", partial(_into, folder, repo, filename, revision, named))


def _into(folder: Path, repo: str, filename: str, revision: str, named: str | None) -> None:
    fetch = partial(_with_room, folder / filename, hf_hub_download, repo, filename, revision=revision, local_dir=folder)
    path = Path(fetch())
    try:
        _check(path, filename, named)
    except DamagedError:
        # The client would copy a damaged file of its cache once more.
        _check(Path(fetch(force_download=True)), filename, named)


def _check(path: Path, filename: str, named: str | None, *also: Path) -> None:
    """Raise `DamagedError` if a file's hash is not the one that the Hub names, and remove it, so that it is fetched anew."""
    if named and re.fullmatch("[0-9a-f]{64}", named):
        kind, found = "SHA-256", sha256_file(path)
    elif named and re.fullmatch("[0-9a-f]{40}", named):
        kind, found = "git hash", git_hash(path)
    else:
        raise ValueError(f"the Hub names no hash of {filename} to check it by")
    if found != named:
        for file in (path, *also):
            file.unlink(missing_ok=True)
        raise DamagedError(f"{filename} has the {kind} {found[:12]}, and there it is {named[:12]}")


def git_hash(path: Path) -> str:
    """The name that git gives a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as handle:
        while piece := handle.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _with_room(where: Path | str, fetch: Callable[..., Any], *args: Any, **options: Any) -> str:
    """Call the Hub's client; the error of a full disk gets the name of the place, which the client does not give it."""
    try:
        return str(fetch(*args, **options))
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(where)) from error
        raise
