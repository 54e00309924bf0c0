"""A saved probe: read from its file, and applied to new text.

    probe = saved.load("results/probes/demo-large/requests/demo-large-l3-256/sum.probe.safetensors")
    probe.predict(["please delete all my files"])

A probe is worth what it was measured to be only on features that are made as its training features were. So its file says
which snapshots were read and how; `load` refuses snapshots of another hash, and new text goes through the very code that
captured the dataset: the same tokens, the same place in the model, the same encoder and the same pooling.

A probe on plain text needs no model, and does not wait for torch.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from scipy import sparse

from tessera import arms, pooling
from tessera.attention import States
from tessera.errors import UserError
from tessera.files import read_json
from tessera.plan import Head
from tessera.probes import FORMAT, HEADER, TERMS, Content
from tessera.shards import SparseTokens
from tessera.snapshots import RECORD, require_whole
from tessera.solvers import Matrix, Model

if TYPE_CHECKING:
    from tessera.models import Tokens
    from tessera.passes import Kept

logger = logging.getLogger("tessera")

Array = npt.NDArray[Any]

# Tokens that are read before their texts are pooled: what bounds the memory.
POOLED_TOGETHER = 65536

AGAIN = "delete it and run the workflow again"


def load(
    path: Path | str, *, results: Path | str | None = None, device: str = "cpu", batch_tokens: int = 4096
) -> "SavedProbe":
    """The probe in a file. The snapshots it reads are looked for in `results`, or else in the folders above the file.

    `device` is torch's name of where the model is to run, `batch_tokens` how many tokens it reads at once. The model is
    opened when the first text comes.
    """
    content = read(Path(path))
    if not content.tensors:
        wrong = f"no probe came of its input ({content.about['reason']})"
        raise UserError(str(path), wrong, "use the probe of another input")
    if "images" in content.about.get("reading", {}):
        raise UserError(
            str(path), "it was trained on images, and only texts can be given here", "use one trained on texts"
        )
    folders = [Path(results)] if results is not None else list(Path(path).resolve().parents)
    snapshots = _snapshots(str(path), content.about["snapshots"], folders)
    return SavedProbe(content, snapshots, device, batch_tokens)


def read(path: Path) -> Content:
    """What a saved probe's file holds; one that is damaged or of another format is a `UserError`."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except FileNotFoundError:
        raise UserError(str(path), "there is no such file", "run the workflow up to its probes first") from None
    except (OSError, SafetensorError) as error:
        raise UserError(str(path), f"it is damaged, or no safetensors file ({error})", AGAIN) from None
    if header is None:
        raise UserError(str(path), "it is not a saved probe", "give a file that ends in .probe.safetensors")
    try:
        given = json.loads(header)
        version, sha256, content = given["format"], given["sha256"], Content(given["about"], tensors)
    except (ValueError, LookupError, TypeError):
        raise UserError(str(path), "its header is damaged", AGAIN) from None
    if version != FORMAT:
        wrong = f"it has format {version}, and this release reads format {FORMAT}"
        raise UserError(str(path), wrong, f"{AGAIN}, or use the release that wrote it")
    if content.sha256 != sha256:
        raise UserError(str(path), "its content is not what its header says", AGAIN)
    return content


def _snapshots(where: str, wanted: dict[str, str], folders: Sequence[Path]) -> dict[str, Path]:
    """Name -> folder of every snapshot, in the first folder that has all; each with the hash that it had in training."""
    for results in folders:
        records = {name: results / name / RECORD for name in wanted}
        if not all(record.is_file() for record in records.values()):
            continue
        for record, sha256 in zip(records.values(), wanted.values(), strict=True):
            if read_json(record)["sha256"] != sha256:
                wrong = "this snapshot is not the one that the probe was trained on"
                raise UserError(str(record.parent), wrong, "bring that one back, or run the workflow again")
            require_whole(record.parent)
        return {name: record.parent for name, record in records.items()}
    mend = "give the folder that has them as load(..., results=...)"
    raise UserError(where, f"the snapshots it reads ({', '.join(wanted)}) are in no folder above it", mend)


class SavedProbe:
    """A probe that is ready for new text. `about` says where it comes from, `labels` what it can answer."""

    def __init__(self, content: Content, snapshots: dict[str, Path], device: str, batch_tokens: int) -> None:
        self.about, self.tensors = content.about, content.tensors
        self.labels: list[str] = list(content.about["labels"])
        self.snapshots, self.device, self.batch_tokens = snapshots, device, batch_tokens
        self.features = self.tensors["features"]
        self.model = Model(self.tensors["weights"], self.tensors["intercepts"], joint=True)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        return [self.labels[code] for code in self._answers(texts, self.model.predict)]

    def probabilities(self, texts: Sequence[str]) -> Array:
        """Texts x labels, in the order of `labels`."""
        return self._answers(texts, self.model.probabilities)

    def _answers(self, texts: Sequence[str], ask: Callable[[Matrix], Array]) -> Array:
        if isinstance(texts, str):
            raise UserError("texts", "a single text was given", "give a list of texts")
        # No text at all has an answer, too.
        rows, answers = [np.zeros(0, np.intp)], [ask(np.zeros((0, len(self.features)), np.float32))]
        for of_part, X in self._read(list(texts)):
            reached: Any = arms.given(X, self.about["threshold"]).X
            rows.append(np.array(of_part))
            answers.append(ask(reached[:, self.features]))
        return np.concatenate(answers)[np.argsort(np.concatenate(rows))]

    def _read(self, texts: list[str]) -> Iterator[tuple[Sequence[int], Matrix]]:
        """Places of some texts and their features, until all are read."""
        if self.about["model"] != "text":
            return self._passes.read(texts)
        name = self.about["head"]
        nobody = np.zeros(len(texts), dtype=bool)
        X = self._tfidf(texts) if name in TERMS else arms.TEXT_ARMS[name](texts).features(nobody)
        return iter([(range(len(texts)), X)])

    @cached_property
    def _passes(self) -> "_Passes":
        return _Passes(self)

    @cached_property
    def _columns(self) -> dict[str, int]:
        """The feature of each term."""
        return {term: place for place, term in enumerate(self.tensors["terms"].tobytes().decode().split("\n"))}

    def _tfidf(self, texts: list[str]) -> sparse.csr_matrix:
        """What `arms.TfIdf` makes of texts, with the terms and their rarity as they were learned."""
        terms, columns = TERMS[self.about["head"]], self._columns
        found = [[columns[term] for word in terms(text) for term in word if term in columns] for text in texts]
        indices = np.fromiter(chain.from_iterable(found), np.int32)
        ends = np.cumsum([0, *map(len, found)])
        X = sparse.csr_matrix((np.ones(len(indices)), indices, ends), shape=(len(texts), len(columns)))
        X.sum_duplicates()
        return arms.weighed(X, self.tensors["rarity"])


# --- reading a model -----------------------------------------------------------------------------------------------


class _Passes:
    """The model of a probe, opened at the one place that the probe reads."""

    def __init__(self, probe: SavedProbe) -> None:
        # At the top of the file, these would make probes on plain text wait for torch.
        from tessera.models import LanguageModel  # noqa: PLC0415
        from tessera.passes import Reader, open_saes  # noqa: PLC0415

        about, reading = probe.about, probe.about["reading"]
        self.pooling, self.max_length = about["pooling"], reading["max_length"]
        self.query = probe.tensors.get("query")
        self.head = Head(about["head"], **about["place"], every_token=self.query is not None)
        key = f"models.{about['model']}"
        self.model = LanguageModel(
            probe.snapshots[f"models/{about['model']}"],
            places=[self.head.place],
            dtype=reading["dtype"],
            attention=reading["attention"],
            device=probe.device,
            key=key,
            chat=reading["chat"] is not None,
        )
        if self.model.template and self.model.template.sha256 != reading["chat"]:
            logger.warning("%s: its chat template comes out otherwise than in training; some put the date there", key)
        saes = open_saes({sae: probe.snapshots[f"saes/{sae}"] for sae in self.head.saes}, probe.device)
        self.width = saes[self.head.sae].config.d_sae if self.head.sae else 0
        self.reader = Reader(self.model, saes, [self.head], encode=reading["encode"], budget=probe.batch_tokens)

    def read(self, texts: list[str]) -> Iterator[tuple[list[int], Matrix]]:
        """Places of some texts and their pooled features, the longest texts first."""
        from tessera.capture import cut  # noqa: PLC0415 - as above

        tokens = self.model.tokenize(texts, self.max_length)
        for row, of_text in enumerate(tokens):
            if not of_text.content.any():
                raise UserError(f"text {row}", "it has no token that is not a special one", "leave it out")
        order = sorted(range(len(tokens)), key=lambda row: (-len(tokens[row]), row))
        for rows in cut(order, tokens, POOLED_TOGETHER):
            batch = [tokens[row] for row in rows]
            kept = self.reader.shard([str(row) for row in rows], batch, [False] * len(rows))[self.head.id]
            yield rows, self._pooled(batch, kept)

    def _pooled(self, batch: Sequence["Tokens"], kept: "Kept") -> Matrix:
        content = np.array([tokens.content.sum() for tokens in batch])
        if self.query is not None:
            return States(kept["states"].reshape(content.sum(), -1), content).pooled(self.query)
        if self.head.sae is None:
            return kept[self.pooling]
        features = SparseTokens(self.width, content, kept["counts"], kept["indices"], kept["values"])
        return pooling.pool(features, self.pooling)
