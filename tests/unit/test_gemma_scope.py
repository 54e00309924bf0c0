"""A release of Gemma Scope, through sae-lens's own directory and reader, without a network.

Only the weights are made up: they have the size of the real ones, because sae-lens knows it by the release, and lie
where the Hub's client would have put them. That client reads its settings when it is imported, hence the other process.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gemma_scope_made
import numpy as np
import pytest
import torch

from tessera.files import read_json, write_json
from tessera.saes import Sae

RELEASE, ID = "gemma-scope-2b-pt-res-canonical", "layer_12/width_16k/canonical"
REPOSITORY, PLACE = "models--google--gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82"
D_IN, WIDTH, TOKENS = 2304, 16384, 16
MODEL = {"layers": 26, "hidden_size": D_IN, "attention_size": 2048, "model_type": "gemma2", "context": 8192}

STORE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from sae_lens import SAE
from tessera import sae_snapshots
from tessera.errors import UserError

folder = Path(sys.argv[1])
theirs = SAE.from_pretrained(sys.argv[2], sys.argv[3], device="cpu")
x = torch.from_numpy(np.load(folder / "x.npy"))
with torch.no_grad():
    np.save(folder / "theirs.npy", theirs.encode(x).numpy())
del theirs
said = []
for name, entry in json.loads(sys.argv[4]).items():
    try:
        sae_snapshots.store(name, entry, folder / name, None, folder / "model.json")
    except UserError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def entry(sae_id: str, width: int) -> dict[str, Any]:
    source = {"release": RELEASE, "id": sae_id}
    return {"source": source, "model": "m", "layer": 12, "site": "resid_post", "width": width}


def made_up_weights(path: Path, x: np.ndarray) -> np.ndarray:
    """Write weights as Gemma Scope has them; returns how far each feature's input is above its threshold for `x`."""
    weights = gemma_scope_made.weights(D_IN, WIDTH)
    path.parent.mkdir(parents=True)
    path.write_bytes(gemma_scope_made.packed(weights))
    return x @ weights["W_enc"] + weights["b_enc"] - weights["threshold"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, np.ndarray, list[str]]]:
    """A folder with the SAE as stored and what sae-lens makes of some vectors; the vectors' margins; what was said."""
    folder = tmp_path_factory.mktemp("gemma-scope")
    x = np.random.default_rng(1).standard_normal((TOKENS, D_IN), np.float32)
    np.save(folder / "x.npy", x)
    commit = "c" * 40
    repository = folder / "hub" / REPOSITORY
    margins = made_up_weights(repository / "snapshots" / commit / PLACE / "params.npz", x)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    write_json(folder / "model.json", MODEL)
    entries = {"stored": entry(ID, WIDTH), "absent": entry("layer_12/width_65k/canonical", 65536)}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "HF_HUB_CACHE": str(folder / "hub")}
    command = [sys.executable, "-c", STORE, str(folder), RELEASE, ID, json.dumps(entries)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    yield folder, margins, json.loads(done.stdout.splitlines()[-1])
    # Two copies of 300 MB, and pytest keeps the folders of several runs.
    shutil.rmtree(folder)


def test_it_encodes_as_sae_lens_does(world: tuple[Path, np.ndarray, list[str]]) -> None:
    folder, margins, _ = world
    theirs = np.load(folder / "theirs.npy")
    features = Sae(folder / "stored", "saes.stored").encode(torch.from_numpy(np.load(folder / "x.npy")))
    ours = np.zeros_like(theirs)
    rows = np.repeat(np.arange(TOKENS), features.counts.numpy())
    ours[rows, features.indices.numpy()] = features.values.numpy()
    clear = np.abs(margins) > 1e-4
    assert clear.mean() > 0.99
    assert 0.01 < (theirs > 0).mean() < 0.5
    assert np.array_equal((ours > 0)[clear], (theirs > 0)[clear])
    assert np.array_equal((theirs > 0)[clear], (margins > 0)[clear])
    np.testing.assert_allclose(ours[clear], theirs[clear], atol=1e-4)


def test_its_record_says_what_the_release_says(world: tuple[Path, np.ndarray, list[str]]) -> None:
    folder, _, _ = world
    record = read_json(folder / "stored/revision.json")
    assert record["source"] == {"release": RELEASE, "id": ID}
    assert (record["architecture"], record["d_in"], record["d_sae"], record["layer"]) == ("jumprelu", D_IN, WIDTH, 12)
    assert Sae(folder / "stored", "saes.stored").config.layer == 12


def test_one_that_is_not_here_and_cannot_be_fetched_is_one_line(world: tuple[Path, np.ndarray, list[str]]) -> None:
    _, _, (said,) = world
    assert said.startswith("saes.absent.source: the Hub cannot be reached")
    assert "\n" not in said
