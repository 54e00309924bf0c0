"""Tiny worlds that several tests share: a random model with a tokenizer, and random SAEs that fit it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fetched import finish, serve
from hub_served import Hub
from models_made import gemma, trained_tokenizer
from transformers import PreTrainedTokenizerFast
from worlds import TEXTS, World, own_config, own_world

# As in a job. Workers stand beside each other, and threads that wait for each other on busy cores slow tiny models tenfold.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return trained_tokenizer(TEXTS, 400)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder with a random four-layer Gemma 2."""
    folder = tmp_path_factory.mktemp("tiny-model")
    gemma(
        folder,
        tiny_tokenizer,
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    return folder


@pytest.fixture(scope="session")
def finished_world(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> World:
    """A user's own inputs after one whole run. Tests that change it work on a copy."""
    world = own_world(tmp_path_factory.mktemp("own") / "world", tiny_model)
    (world.folder / "printed.txt").write_text(world.run(config=own_config()))
    return world


@pytest.fixture(scope="session")
def study_hub(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Hub]:
    """The Hub that `fetched_world` comes from."""
    hub = serve(tmp_path_factory.mktemp("study-hub"), tiny_model)
    yield hub
    hub.stop()


@pytest.fixture(scope="session")
def fetched_world(tmp_path_factory: pytest.TempPathFactory, study_hub: Hub) -> World:
    """The study of `fetched` after one whole run. Tests that change it work on a copy."""
    return finish(tmp_path_factory.mktemp("fetched"), study_hub)
