"""What can go wrong between here and the Hugging Face Hub, in words a user can act on.

Models, SAEs and datasets come through three libraries, each of which lets the errors of the next ones through or wraps
them in its own. So an error is judged by everything that led to it, and every one of them is an answer to what the user
asked for. Credentials never reach a message.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tessera.errors import UserError
from tessera.job import DISK_TROUBLE


@contextmanager
def hub_trouble(key: str, what: str, split: str | None = None) -> Iterator[None]:
    """Turn whatever is raised while `what` is fetched into a `UserError` at config key `key`.

    `split` is the one asked for of a dataset, whose line names the key below `key` that the trouble is about.
    """
    try:
        yield
    except Exception as error:
        # A disk that is full or closed is not the Hub's doing, and the job words it.
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            raise
        about, wrong, mend = _in_words(error, what, split)
        raise UserError(key if split is None else f"{key}.{about}", wrong, mend) from None


def _in_words(error: Exception, what: str, split: str | None) -> tuple[str, str, str]:
    """What an error is about (hub, revision, config or splits), what is wrong, and the mend."""
    led_to = _chain(error)
    # By name, because these are of libraries that take a second to import, or that another release replaces.
    names = {kind.__name__ for each in led_to for kind in type(each).__mro__}
    message = without_secrets(f"{type(error).__name__}: {error}")
    status = _status(led_to)

    def is_a(*kinds: type[Exception]) -> bool:
        return any(isinstance(each, kinds) for each in led_to)

    cases = (
        (
            is_a(GatedRepoError) or "is a gated dataset" in message,
            ("hub", f"'{what}' is gated", "accept its terms on its page and set HF_TOKEN to a token of that account"),
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
            status in (401, 403),
            ("hub", f"the Hub refused '{what}' with status {status}", "set HF_TOKEN to a token that may read it"),
        ),
        (
            status is not None,
            ("hub", f"the Hub answered with status {status} for '{what}'", "run again later"),
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


def _chain(error: BaseException) -> list[BaseException]:
    """An error and all that led to it, itself first."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


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
