"""A capture that is killed outright, and then started again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from saes_made import random_sae

from tessera.files import read_json

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from tessera import capture
from tessera.examples import Table
from tessera.plan import Head, hidden_head

folder, model, sae = map(Path, sys.argv[1:4])
passes = 0
original = capture.LanguageModel.read
def counted(self, batch):
    global passes
    passes += 1
    return original(self, batch)
capture.LanguageModel.read = counted
texts = [" ".join(["word"] * (1 + i % 17)) + f" {i}" for i in range(600)]
words = np.array(["a"] * len(texts), dtype=object)
table = Table([str(i) for i in range(len(texts))], texts, None, words, words, [None] * len(texts), np.arange(len(texts)))
capture.run(
    folder,
    model=("tiny", model, ""),
    saes={"s": (sae, "")},
    heads=[hidden_head(1), Head("s", 1, "s")],
    table=table,
    dataset_sha256="",
    reading=capture.Reading("float32", "eager", 64),
    effort=capture.Effort("cpu", batch_tokens=128, shard_tokens=256),
)
print(passes)
"""


def start(*arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(*arguments: Path) -> int:
    process = start(*arguments)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return int(printed)


def test_it_resumes_with_fewer_passes_and_ends_with_the_same_bytes(tmp_path: Path, tiny_model: Path) -> None:
    random_sae(tmp_path / "sae", "jumprelu", layer=1)
    whole = finish(tmp_path / "whole", tiny_model, tmp_path / "sae")
    killed = start(tmp_path / "killed", tiny_model, tmp_path / "sae")
    while not list((tmp_path / "killed").glob("progress/0001*.json")):
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed/manifest.json").exists()
    resumed = finish(tmp_path / "killed", tiny_model, tmp_path / "sae")
    assert 0 < resumed < whole
    # The manifest names the hash of every shard, so equal manifests are equal bytes.
    assert read_json(tmp_path / "killed/manifest.json") == read_json(tmp_path / "whole/manifest.json")
