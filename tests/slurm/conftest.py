"""A cluster for the tests of a file, or the word that there is no SLURM to make one of."""

import importlib.util
from collections.abc import Iterator

import pytest
from cluster import Cluster, missing


@pytest.fixture(scope="session")
def slurm() -> None:
    """Skips where a test of SLURM cannot run."""
    if programs := missing():
        pytest.skip(f"no slurm: {', '.join(programs)} not installed (on Debian: apt-get install slurm-wlm munge)")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip(
            "no slurm: Snakemake's executor for it is not installed (pip install -c constraints.txt '.[slurm]')"
        )


@pytest.fixture(scope="module")
def cluster(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made
