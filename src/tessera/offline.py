"""Jobs ask the Hub nothing: whatever is fetched, is fetched by the jobs whose work that is (see `tessera.online`)."""

import os


def keep_jobs_offline() -> None:
    """Start every job of this process offline, and remember what whoever runs it has set, for the jobs that fetch."""
    os.environ.setdefault("TESSERA_HF_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
    os.environ["HF_HUB_OFFLINE"] = "1"
