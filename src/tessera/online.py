"""Lets the process that imports this ask the Hub, as far as whoever started the workflow lets it.

The workflow starts every job with HF_HUB_OFFLINE=1, so that nothing is fetched behind the back of a computation. A job
whose work is to fetch imports this first, because the Hub's client reads that setting once, when it is imported.
"""

import os

if "TESSERA_HF_HUB_OFFLINE" in os.environ:
    os.environ["HF_HUB_OFFLINE"] = os.environ["TESSERA_HF_HUB_OFFLINE"]
