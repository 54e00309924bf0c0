"""What can go wrong between here and the Hugging Face Hub, in words a user can act on.

Models, SAEs and datasets come through three libraries, each of which lets the errors of the next ones through or wraps
them in its own. So an error is judged by everything that led to it, and every one of them is an answer to what the user
asked for. Credentials never reach a message.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tessera.errors import UserError, chain
from tessera.job import DISK_TROUBLE

# Seconds of rest before each further try of what may pass.
WAITS = (2, 10, 30)

KEPT = "what has arrived whole is kept"


class DamagedError(Exception):
    """A file whose content is not what the Hub says it is."""


@contextmanager
def hub_trouble(key: str, what: str, split: str | None = None) -> Iterator[None]:
    """Turn whatever is raised while `what` is fetched into a `UserError` at config key `key`.

    `split` is the one asked for of a dataset, whose line names the key below `key` that the trouble is about.
    """
    try:
        yield
    except Exception as error:
        # A disk that is full or closed is not the Hub's doing, and the job words it.
        if disk := _disk_trouble(error):
            raise disk from error
        about, wrong, mend = _in_words(error, what, split)
        raise UserError(key if split is None else f"{key}.{about}", wrong, mend) from None


def may_pass(error: Exception) -> bool:
    """Whether the same may go well in a moment. What cannot be reached at all, the client has tried often enough."""
    led_to = chain(error)
    status = _status(led_to)
    if status is not None:
        return status in (408, 429) or status >= 500
    return isinstance(error, DamagedError) or _is_cut(led_to)


def retry_after(error: Exception) -> int | None:
    """The seconds that a Hub wants to be left alone for."""
    for each in chain(error):
        if isinstance(each, HfHubHTTPError):
            said = str(each.response.headers.get("Retry-After", ""))
            return int(said) if said.isdigit() else None
    return None


def _is_cut(led_to: list[BaseException]) -> bool:
    """Whether a connection that stood was cut or fell silent. By name: libraries differ in whose class that is."""
    names = _names(led_to)
    return ("TransportError" in names and "ConnectError" not in names) or any(
        isinstance(each, OSError) and "Consistency check failed" in str(each) for each in led_to
    )


def _disk_trouble(error: Exception) -> OSError | None:
    """What a disk did to lead to an error, with the name of a place on it."""
    for each in chain(error):
        if isinstance(each, OSError) and each.errno in DISK_TROUBLE:
            return OSError(each.errno, os.strerror(each.errno), each.filename or constants.HF_HOME)
    # The client's faster half is written in Rust, whose errors are words, and datasets looks for room before it writes.
    if f"os error {errno.ENOSPC}" in str(error) or "Not enough disk space" in str(error):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), constants.HF_HOME)
    return None


def _in_words(error: Exception, what: str, split: str | None) -> tuple[str, str, str]:
    """What an error is about (hub, revision, config or splits), what is wrong, and the mend."""
    led_to = chain(error)
    names = _names(led_to)
    message = without_secrets(f"{type(error).__name__}: {error}")
    status = _status(led_to)

    def is_a(*kinds: type[Exception]) -> bool:
        return any(isinstance(each, kinds) for each in led_to)

    cases = (
        (
            is_a(GatedRepoError) or "is a gated dataset" in message,
            _gated(led_to, what, split),
        ),
        (
            is_a(RevisionNotFoundError) or message.startswith("DatasetNotFoundError: Revision "),
            ("revision", f"'{what}' has no such revision", "give the hash of a commit on its page"),
        ),
        (
            is_a(RepositoryNotFoundError) or "DatasetNotFoundError" in names,
            ("hub", f"the Hub shows no '{what}'", "check the name; if it is private, set HF_TOKEN"),
        ),
        (
            status == 401 and "Invalid credentials" in " ".join(map(str, led_to)),
            (
                "hub",
                f"the Hub does not know the token that '{what}' is asked for with (status 401)",
                f"set HF_TOKEN to a valid one, see {constants.ENDPOINT}/settings/tokens",
            ),
        ),
        (
            status in (401, 403),
            ("hub", f"the Hub refused '{what}' with status {status}", "set HF_TOKEN to a token that may read it"),
        ),
        (
            status == 429,
            ("hub", f"the Hub limits how often it is asked, and '{what}' was too much (status 429)", _when(error)),
        ),
        (
            status is not None,
            ("hub", f"the Hub answered with status {status} for '{what}'", f"run again later; {KEPT}"),
        ),
        (
            isinstance(error, DamagedError),
            (
                "hub",
                f"a file of '{what}' is not what the Hub says it is: {error}",
                "run again later, or use a copy fetched elsewhere",
            ),
        ),
        (
            _is_cut(led_to),
            (
                "hub",
                f"the connection breaks off again and again while '{what}' is fetched",
                f"check the connection and run again; {KEPT}",
            ),
        ),
        (
            is_a(ConnectionError, LocalEntryNotFoundError) or "TransportError" in names,
            (
                "hub",
                f"the Hub cannot be reached for '{what}', and not all of it is cached",
                "check the connection, HF_ENDPOINT and HF_HUB_OFFLINE and run again, or use a copy fetched elsewhere",
            ),
        ),
        (
            isinstance(error, EntryNotFoundError),
            ("hub", f"'{what}' lacks a file that is needed", "check the id and the revision"),
        ),
        (
            "Unknown split" in message,
            ("splits", f"there is no split '{split}' ({message})", "name splits that are there"),
        ),
        (
            "BuilderConfig" in message or "Config name is missing" in message,
            ("config", f"no such configuration ({message})", "name one that is there"),
        ),
    )
    other = ("hub", f"'{what}' cannot be read ({message})", "check what is asked for, or use a copy fetched elsewhere")
    return next((words for applies, words in cases if applies), other)


def _gated(led_to: list[BaseException], what: str, split: str | None) -> tuple[str, str, str]:
    """A repository whose terms have to be accepted: with no token, or with one of an account that has not done so."""
    # A release of SAEs is not called as its repository is.
    repo = next((each.repo_id for each in led_to if isinstance(each, GatedRepoError) and each.repo_id), what)
    page = f"{constants.ENDPOINT}/{repo if split is None else f'datasets/{what}'}"
    if huggingface_hub.get_token() is None:
        mend = f"accept its terms on {page} and set HF_TOKEN to a token of that account"
        return "hub", f"'{what}' is gated, and there is no token", mend
    mend = f"accept its terms on {page} with the account of HF_TOKEN, or give a token that may read gated repositories"
    return "hub", f"'{what}' is gated, and this token may not read it", mend


def _when(error: Exception) -> str:
    """When to ask a busy Hub again."""
    seconds = retry_after(error)
    soon = "later" if seconds is None else f"in {seconds} s or later"
    more = "" if huggingface_hub.get_token() else ", and a token in HF_TOKEN raises the limit"
    return f"run again {soon}; {KEPT}{more}"


def _names(led_to: list[BaseException]) -> set[str]:
    """The names of all kinds of error in a chain: of libraries that take a second to import, or that another release replaces."""
    return {kind.__name__ for each in led_to for kind in type(each).__mro__}


def _status(led_to: list[BaseException]) -> int | None:
    """The HTTP status of a refusal. A file that is not there is none: the libraries try files that few have."""
    for each in led_to:
        if isinstance(each, HfHubHTTPError) and not isinstance(each, EntryNotFoundError):
            return each.response.status_code
    return None


def without_secrets(message: str) -> str:
    """A message of the Hub's client, on one line, without tokens, passwords and the queries of signed addresses."""
    for secret in (huggingface_hub.get_token(), os.environ.get("HF_TOKEN")):
        message = message.replace(secret, "***") if secret else message
    message = re.sub(r"hf_\w+|(?<=[Bb]earer )\S+|(?<=\?)[^\s'\"]+|(?<=://)[^/\s@]+(?=@)", "***", message)
    message = " ".join(message.split())
    return message if len(message) <= 300 else message[:297] + "..."
