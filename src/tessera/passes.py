"""One batch through the model: what each head keeps of it, as numpy arrays.

All heads of a capture take what they need from one forward pass. Hidden states are pooled or kept, and the content
tokens' vectors go through each SAE. An SAE whose encoder a card cannot hold beside the model waits until the shard is
complete, so that its weights travel once a shard and not once a batch.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tessera.columns import Array
from tessera.errors import UserError
from tessera.health import Sample
from tessera.memory import out_of_memory, release
from tessera.models import LanguageModel, Place, Tokens, content_mask
from tessera.plan import Head
from tessera.saes import WEIGHTS, Features, Sae, read_config

logger = logging.getLogger("tessera")

# Share of a card that is left to batches when encoders are put beside the model.
FOR_BATCHES = 0.25


@dataclass
class Kept:
    """What one head keeps of some texts: arrays by name, a piece a batch, and an SAE's sample."""

    pieces: dict[str, list[Array]] = field(default_factory=dict)
    sample: Sample | None = None

    def add(self, **arrays: Array) -> None:
        for name, array in arrays.items():
            self.pieces.setdefault(name, []).append(array)

    def take(self, other: "Kept") -> None:
        """Add what another keeps, in the order of the batches."""
        for name, arrays in other.pieces.items():
            self.pieces.setdefault(name, []).extend(arrays)
        if other.sample is not None:
            self.sample = other.sample if self.sample is None else self.sample
            if self.sample is not other.sample:
                self.sample.merge(other.sample)

    def gauge(self, sae: Sae, vectors: Tensor, features: Features, places: Tensor) -> None:
        """Count some tokens into the sample, by decoding them."""
        if self.sample is None:
            self.sample = Sample(sae.config.d_in)
        if len(places):
            given = sae.prepared(vectors[places]).cpu()
            self.sample.add(given.numpy(), sae.decode(features.of(places)).numpy())

    def pop(self, name: str) -> Array:
        return np.concatenate(self.pieces.pop(name))

    def __getitem__(self, name: str) -> Array:
        return np.concatenate(self.pieces[name])


@contextmanager
def multiplying_in(precision: str) -> Iterator[None]:
    """Let a card multiply float32 matrices in float32, or in TF32, which keeps 10 bits of each number."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def open_saes(folders: Mapping[str, Path], device: str) -> dict[str, Sae]:
    """The SAEs of a capture. A card holds their encoders, the smallest first, for as long as it has room."""
    room = _room(device)
    found = {}
    for name, folder in sorted(folders.items(), key=lambda item: ((item[1] / WEIGHTS).stat().st_size, item[0])):
        config = read_config(folder, f"saes.{name}")
        needed = config.d_in * config.d_sae * torch.float32.itemsize
        resident = needed <= room
        if resident:
            room -= needed
        else:
            logger.warning("saes.%s does not fit beside the model; its encoder is read in parts, once a shard", name)
        found[name] = Sae(folder, f"saes.{name}", device, resident=resident)
    return found


def _room(device: str) -> float:
    """Bytes that encoders may take."""
    if not device.startswith("cuda"):
        return float("inf")
    free, total = torch.cuda.mem_get_info(device)
    return free - FOR_BATCHES * total


class Reader:
    """A model and its SAEs, reading for some heads.

    `budget` is how many tokens a batch may have, padding included. It is halved whenever a batch does not fit the memory.
    """

    def __init__(
        self, model: LanguageModel, saes: Mapping[str, Sae], heads: Sequence[Head], *, encode: str, budget: int
    ):
        self.model, self.saes, self.encode, self.budget = model, saes, encode, budget
        self.heads = list(heads)
        for head in self.heads:
            if head.sae and saes[head.sae].config.centred and not model.centres:
                wrong = (
                    "it was trained on a model whose residual stream was centred, and this one's blocks do not centre"
                )
                raise UserError(f"saes.{head.sae}", wrong, "choose an SAE of another kind")

    def shard(self, names: Sequence[str], texts: Sequence[Tokens], sampled: Sequence[bool]) -> dict[str, Kept]:
        """Head -> what it keeps of these texts, which come longest first. `sampled` marks those that gauge the SAEs."""
        kept = {head.id: Kept() for head in self.heads}
        start = 0
        while start < len(texts):
            stop = start + max(1, self.budget // len(texts[start]))
            part = slice(start, stop)
            try:
                self._batch(names[part], texts[part], sampled[part], kept)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._halve(names[start], len(texts[part]), len(texts[start]), error)
            else:
                start = stop
        for head in self.heads:
            if head.sae and not self.saes[head.sae].at_hand:
                of_head = kept[head.id]
                self._encode(head, torch.from_numpy(of_head.pop("vectors")), of_head.pop("sampled"), of_head, {})
        return kept

    def _halve(self, name: str, texts: int, longest: int, error: BaseException) -> None:
        if texts == 1:
            mend = "lower models.*.max_length, or give it a device with more memory"
            raise UserError(f"example '{name}'", f"its {longest} tokens alone do not fit the memory", mend) from error
        self.budget = max(1, texts // 2) * longest
        logger.warning("out of memory with %d texts of up to %d tokens; going on with half as many", texts, longest)
        release()

    @torch.inference_mode()
    def _batch(
        self, names: Sequence[str], batch: Sequence[Tokens], sampled: Sequence[bool], kept: Mapping[str, Kept]
    ) -> None:
        found = self.model.read(batch)
        content = torch.from_numpy(content_mask(batch)).to(self.model.device)
        wanted = np.repeat(sampled, [int(tokens.content.sum()) for tokens in batch])
        new = {head.id: Kept() for head in self.heads}
        for place, states in found.items():
            vectors = states[content].to(torch.float32)
            self._check_finite(vectors, content, names, place)
            known: dict[str, Features] = {}
            for head in self.heads:
                if head.place != place:
                    continue
                if head.sae is None:
                    new[head.id].add(**(_states(vectors) if head.every_token else pooled(states.float(), content)))
                    continue
                new[head.id].add(norms=vectors.norm(dim=1).cpu().numpy())
                if self.saes[head.sae].at_hand:
                    self._encode(head, vectors, wanted, new[head.id], known)
                else:
                    new[head.id].add(vectors=vectors.cpu().numpy(), sampled=wanted)
        # Only a batch that came through whole counts, so that one that runs out of memory can be begun again.
        for name, of_head in new.items():
            kept[name].take(of_head)

    def _encode(self, head: Head, vectors: Tensor, sampled: Array, kept: Kept, known: dict[str, Features]) -> None:
        """What a head keeps of some vectors. `known` holds their features by SAE, and is added to."""
        assert head.sae is not None  # noqa: S101 - only heads with an SAE come here
        sae = self.saes[head.sae]
        vectors = vectors.to(self.model.device)
        with torch.inference_mode(), multiplying_in(self.encode):
            counts = None
            if head.matched:
                if head.matched not in known:
                    known[head.matched] = self.saes[head.matched].encode(vectors)
                counts = known[head.matched].counts
            features = sae.encode(vectors, counts=counts)
        known[head.sae] = features
        kept.add(
            counts=features.counts.to(torch.int32).cpu().numpy(),
            indices=features.indices.to(torch.int32).cpu().numpy(),
            values=features.values.cpu().numpy(),
        )
        kept.gauge(sae, vectors, features, torch.from_numpy(np.flatnonzero(sampled)).to(vectors.device))

    def _check_finite(self, vectors: Tensor, content: Tensor, names: Sequence[str], place: Place) -> None:
        # A sum is finite only if every number in it is, short of an overflow, which the closer look sees through.
        if bool(torch.isfinite(vectors.sum())):
            return
        good = torch.isfinite(vectors).all(dim=1)
        if not bool(good.all()):
            name = names[int(content.nonzero()[int((~good).nonzero()[0])][0])]
            layer, site = place
            wrong = f"layer {layer} ({site}) gives values that are not finite in {self.model.dtype}"
            raise UserError(f"example '{name}'", wrong, "run the model in bfloat16 or float32 (models.*.dtype)")


def pooled(states: Tensor, content: Tensor) -> dict[str, Array]:
    """Last, mean and largest over the content positions of each text."""
    mask = content[:, :, None]
    places = torch.arange(content.shape[1], device=content.device)
    last = (places * content).argmax(dim=1)
    return {
        "last": states[torch.arange(len(states), device=states.device), last].cpu().numpy(),
        "mean": ((states * mask).sum(dim=1) / mask.sum(dim=1)).cpu().numpy(),
        "max": states.masked_fill(~mask, -torch.inf).amax(dim=1).cpu().numpy(),
    }


def _states(vectors: Tensor) -> dict[str, Array]:
    return {"states": vectors.cpu().numpy().ravel()}
