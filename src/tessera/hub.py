"""What can go wrong between here and the Hugging Face Hub, in words a user can act on. Tokens never appear in them."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tessera.errors import UserError

OFFLINE = "the Hub cannot be reached and nothing is cached"
TO_REACH = "check the connection, HF_ENDPOINT and HF_HUB_OFFLINE, and run again; what has arrived is kept"


@contextmanager
def hub_trouble(key: str, what: str) -> Iterator[None]:
    """Turn the Hub's errors about `what` into a `UserError` at config key `key`."""
    try:
        yield
    except GatedRepoError:
        raise UserError(key, f"'{what}' is gated", "accept its terms on its page and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise UserError(key, f"'{what}' has no such revision", "give the hash of a commit on its page") from None
    except RepositoryNotFoundError:
        mend = "check the name; a private one needs HF_TOKEN"
        raise UserError(key, f"there is no '{what}' on the Hub, or it is private", mend) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise UserError(key, f"'{what}': {OFFLINE}", TO_REACH) from None
    except EntryNotFoundError:
        raise UserError(key, f"'{what}' lacks a file that is needed", "check the id and the revision") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise UserError(key, f"'{what}': the Hub answered with status {status}", "run again later") from None
    except ConnectionError:
        raise UserError(key, f"'{what}': {OFFLINE}", TO_REACH) from None
