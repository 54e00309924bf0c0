"""SAEs on a sibling: overlap of active features and nearest directions, against plain loops."""

from pathlib import Path

import numpy as np
import pytest
from saes_made import random_sae

from tessera import shards
from tessera.columns import numbers, ragged
from tessera.errors import UserError
from tessera.files import sha256_file, write_json
from tessera.transfer import dictionaries


def reading(folder: Path, active: list[list[int]], ids: list[int], width: int = 50) -> tuple[Path, str]:
    """A capture of one SAE head over two examples; `active` holds the features of each token."""
    counts = np.array([len(of_token) for of_token in active], np.int32)
    flat = np.array([feature for of_token in active for feature in of_token], np.int32)
    half = len(active) // 2
    lengths, rows = np.array([half, len(active) - half]), np.arange(2, dtype=np.int32)
    per_row = np.array([counts[:half].sum(), counts[half:].sum()])
    values = np.ones(len(flat), np.float32)
    norms = np.ones(len(active), np.float32)
    table = [
        numbers(rows),
        ragged(counts, lengths),
        ragged(flat, per_row),
        ragged(values, per_row),
        ragged(norms, lengths),
    ]
    shards.write(folder / "s" / "part.parquet", shards.pa.Table.from_arrays(table, schema=shards.SAE_SCHEMA))
    tokens = [
        numbers(rows),
        ragged(np.arange(len(active), dtype=np.int32), lengths),
        ragged(np.array(ids, np.int32), lengths),
    ]
    shards.write(folder / "tokens" / "part.parquet", shards.pa.Table.from_arrays(tokens, schema=shards.TOKENS_SCHEMA))
    files = {head: folder / head / "part.parquet" for head in ("s", "tokens")}
    entries = {head: [{"file": path.name, "sha256": sha256_file(path)}] for head, path in files.items()}
    write_json(folder / "manifest.json", {"heads": {"s": {"width": width}}, "shards": entries})
    return folder / "manifest.json", "s"


def test_agreement_is_the_mean_overlap_of_active_features(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    a, b = ([sorted(chance.permutation(50)[: chance.integers(0, 9)].tolist()) for _ in range(40)] for _ in range(2))
    b[:20] = a[:20]
    home, reader = (reading(tmp_path / name, active, list(range(40))) for name, active in (("a", a), ("b", b)))
    slow = [len(set(x) & set(y)) / len(set(x) | set(y)) for x, y in zip(a, b, strict=True) if x or y]
    found, by_chance = dictionaries.agreement(home, reader)
    assert found == pytest.approx(np.mean(slow))
    assert by_chance < 0.2 < found
    assert dictionaries.agreement(home, home)[0] == 1.0


def test_models_that_cut_texts_differently_are_not_compared(tmp_path: Path) -> None:
    active = [[1], [2], [3], [4]]
    home, reader = reading(tmp_path / "a", active, [5, 6, 7, 8]), reading(tmp_path / "b", active, [5, 6, 7, 9])
    with pytest.raises(UserError, match="different tokens"):
        dictionaries.agreement(home, reader)


def test_the_nearest_direction_is_found_whatever_its_length(tmp_path: Path) -> None:
    one = random_sae(tmp_path / "one", "topk", d_sae=40)
    other = random_sae(tmp_path / "other", "topk", d_sae=64)
    saes = {name: {"model": "m", "layer": 1, "width": width} for name, width in (("one", 40), ("other", 64))}
    (there, back) = dictionaries.matches([["one", "other"]], saes, tmp_path)
    a, b = (sae.W_dec.detach().numpy() for sae in (one, other))
    slow = [max(float(x @ y) / np.linalg.norm(x) / np.linalg.norm(y) for y in b) for x in a]
    assert there["mean_cosine"] == pytest.approx(np.mean(slow), rel=1e-5)
    assert there["share_above_07"] == np.mean(np.array(slow) > 0.7)
    assert (there["sae_a"], there["n_features"], back["sae_a"], back["n_features"]) == ("one", 40, "other", 64)
    # Random decoders match no better than random directions do.
    assert abs(there["mean_cosine"] - there["chance"]) < 0.05
    (same, _) = dictionaries.matches([["one", "one"]], saes, tmp_path)
    assert same["mean_cosine"] == pytest.approx(1.0)
