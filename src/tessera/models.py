"""A language model as a stack of blocks that can be read from inside.

What a block returns is read by a hook on it, because the `hidden_states` that a model reports end with a normalised one.
The block list is found by its shape (the one module list as long as the config says the model is deep), not by a table of
model names. The forward stops at the deepest place that is read: deeper blocks are dropped when the model is opened, and
neither logits nor a cache is ever computed.

In a vision-language model the blocks are those of its language tower. Texts are read by that tower alone, just as the
language model that it is would read them; images take the whole model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from tessera.errors import UserError
from tessera.files import sha256_text
from tessera.pictures import Picture
from tessera.plan import VISION
from tessera.sites import attach, attach_before
from tessera.snapshots import opening
from tessera.vision import Images, feature_size, projector

# Model types whose attention scores are soft-capped, which only the eager implementation does in every release.
SOFT_CAPPED = {"gemma2"}

# Texts that the tokenizer is given at once.
TOKENIZED_TOGETHER = 1000

# Stands for a text where only what is around it matters.
MARK = "what the user says"

# A block's number and the site in it.
Place = tuple[int, str]


class _Enough(Exception):  # noqa: N818 - not an error
    """Raised by the last hook to end the forward pass there."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One example as the model reads it. `content` marks the positions that are its own: no special tokens, no template.

    Of an image these are the positions at which the model puts what it makes of `picture`.
    """

    ids: npt.NDArray[np.int32]
    content: npt.NDArray[np.bool_]
    truncated: bool
    picture: Picture | None = None

    def __len__(self) -> int:
        return len(self.ids)


class LanguageModel:
    """A model and its tokenizer, opened for reading texts or images at `places`."""

    def __init__(
        self,
        folder: Path,
        *,
        places: Iterable[Place],
        dtype: str,
        attention: str,
        device: str,
        key: str,
        chat: bool = False,
        images: bool = False,
    ):
        # A capture shows one bar, its own; the loader's bar over a model's tensors would say nothing beside it.
        transformers.utils.logging.disable_progress_bar()
        self.places = tuple(sorted(set(places)))
        self.folder, self.device, self.dtype, self.key = folder, device, dtype, key
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        text = config.get_text_config()
        self.context = int(getattr(text, "max_position_embeddings", 0) or 0)
        # What a template puts around a text has no place around an image.
        self.template = ChatTemplate(self.tokenizer, key) if chat and not images else None
        self.images = Images(folder, config, key, context=self.context) if images else None
        model = open_model(folder, config, dtype=dtype, attention=attention, key=key)
        self.tower: Any = language_tower(model)
        blocks = find_blocks(self.tower, text.num_hidden_layers)
        deepest = max((layer for layer, site in self.places if site != VISION), default=-1)
        if deepest >= len(blocks):
            wrong = f"layer {deepest} is beyond its {len(blocks)} layers"
            raise UserError(f"{key}.layers", wrong, f"use 0 to {len(blocks) - 1}")
        if self.images is None and any(site == VISION for _, site in self.places):
            raise UserError(f"{key}.images", "a vision tower reads no texts", "ask for it on image datasets alone")
        del blocks[deepest + 1 :]
        self.blocks = blocks
        # Texts need none of the rest.
        reads: Any = self.tower if self.images is None else model
        self.model = reads.eval().requires_grad_(False).to(device)
        pad = self.tokenizer.pad_token_id
        self.pad_id = pad if pad is not None else (self.tokenizer.eos_token_id or 0)
        self.special_ids = np.array(sorted(self.tokenizer.all_special_ids), dtype=np.int32)

    @property
    def centres(self) -> bool:
        """Whether its blocks subtract the mean of what they read, so that centring what is written changes nothing."""
        return any(isinstance(module, nn.LayerNorm) for module in self.blocks.modules())

    def size(self, site: str) -> int:
        """How many numbers stand at a site of hidden states."""
        config = self.model.config
        return feature_size(config) if site == VISION else int(config.get_text_config().hidden_size)

    @property
    def vocabulary(self) -> int:
        """How many tokens have a vector; a tokenizer may know more."""
        return int(self.tower.get_input_embeddings().num_embeddings)

    # --- tokens ---

    def see(self, pictures: Sequence[Picture]) -> list[Tokens]:
        """Each image's tokens, in the model's own minimal prompt."""
        assert self.images is not None  # noqa: S101 - a model that is to read images is opened for that
        seen = [self.images.ids(picture) for picture in pictures]
        return [
            Tokens(ids, ids == self.images.token_id, truncated=False, picture=picture)
            for ids, picture in zip(seen, pictures, strict=True)
        ]

    def tokenize(self, texts: Sequence[str], max_length: int) -> list[Tokens]:
        """Each text's tokens as the model is meant to see them, cut at the end of the text.

        BOS comes first where the tokenizer has one. With a chat template a text is what the user says, and the template
        alone decides what stands around it.
        """
        limit = min(max_length, self.context) if self.context else max_length
        found: list[Tokens] = []
        for start in range(0, len(texts), TOKENIZED_TOGETHER):
            given = list(texts[start : start + TOKENIZED_TOGETHER])
            found += self._plain(given, limit) if self.template is None else self._in_template(given, limit)
        return found

    def _plain(self, texts: list[str], limit: int) -> list[Tokens]:
        bos = self.tokenizer.bos_token_id
        tokens = []
        # Texts longer than the limit are cut here and counted, so the tokenizer's own warning about them says nothing new.
        for given in self.tokenizer(texts, add_special_tokens=True, truncation=False, verbose=False)["input_ids"]:
            ids = given if bos is None or given[:1] == [bos] else [bos, *given]
            kept = np.array(ids[:limit], dtype=np.int32)
            tokens.append(Tokens(kept, ~np.isin(kept, self.special_ids), len(ids) > limit))
        return tokens

    def _in_template(self, texts: list[str], limit: int) -> list[Tokens]:
        assert self.template is not None  # noqa: S101 - asked for only where there is one
        filled = [self.template.fill(text) for text in texts]
        encoded = self.tokenizer(
            [whole for whole, _, _ in filled],
            add_special_tokens=False,
            truncation=False,
            verbose=False,
            return_offsets_mapping=True,
        )
        tokens = []
        for given, offsets, (_, start, stop) in zip(
            encoded["input_ids"], encoded["offset_mapping"], filled, strict=True
        ):
            ids, places = np.array(given, dtype=np.int32), np.array(offsets)
            overlaps = (places[:, 0] < stop) & (places[:, 1] > start)
            tokens.append(self._cut_inside(ids, overlaps & ~np.isin(ids, self.special_ids), limit))
        return tokens

    def _cut_inside(self, ids: npt.NDArray[np.int32], content: npt.NDArray[np.bool_], limit: int) -> Tokens:
        """Of a text that is too long in its template, the text's last tokens are left out and the template stays whole."""
        excess = len(ids) - limit
        if excess <= 0:
            return Tokens(ids, content, truncated=False)
        own = np.flatnonzero(content)
        if len(own) <= excess:
            wrong = f"the chat template alone takes {len(ids) - len(own)} of {limit} tokens"
            raise UserError(f"{self.key}.max_length", wrong, "allow longer texts")
        kept = np.ones(len(ids), dtype=bool)
        kept[own[len(own) - excess :]] = False
        return Tokens(ids[kept], content[kept], truncated=True)

    # --- passes ---

    @torch.inference_mode()
    def read(self, batch: Sequence[Tokens]) -> dict[Place, Tensor]:
        """Place -> what is there [examples, length, size], for a batch padded on the right."""
        given = self._inputs(batch)
        found: dict[Place, Tensor] = {}
        hooks = [
            attach(self.blocks[layer], site, self._keep((layer, site), found), self.key)
            for layer, site in self.places
            if site != VISION
        ]
        if self.images is not None:
            hooks.append(attach_before(projector(self.model), self._keep_features(content_mask(batch), found)))
        try:
            self.model(**given, **self._no_cache())
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _inputs(self, batch: Sequence[Tokens]) -> dict[str, Tensor]:
        length = max(map(len, batch))
        ids = np.full((len(batch), length), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(batch), length), dtype=np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens.ids
            mask[row, : len(tokens)] = 1
        given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self.images is not None:
            given |= self.images.inputs([tokens.picture for tokens in batch if tokens.picture is not None], length)
        return {name: values.to(self.device) for name, values in given.items()}

    def _no_cache(self) -> dict[str, bool]:
        return {"use_cache": False} if hasattr(self.tower.config, "use_cache") else {}

    def _keep(self, place: Place, found: dict[Place, Tensor]) -> Any:
        def keep(states: Tensor) -> None:
            found[place] = states
            if len(found) == len(self.places):
                raise _Enough

        return keep

    def _keep_features(self, content: npt.NDArray[np.bool_], found: dict[Place, Tensor]) -> Any:
        def keep(features: Tensor) -> None:
            assert self.images is not None  # noqa: S101 - only they have a projector
            placed = self.images.placed(features, content)
            for place in self.places:
                if place[1] == VISION:
                    self._keep(place, found)(placed)

        return keep


class ChatTemplate:
    """A tokenizer's chat template around one thing that the user says."""

    def __init__(self, tokenizer: Any, key: str):
        self.tokenizer, self.key = tokenizer, f"{key}.chat"
        if not isinstance(tokenizer.chat_template, str):
            wrong = (
                "its tokenizer has several chat templates"
                if tokenizer.chat_template
                else "its tokenizer has no chat template"
            )
            raise UserError(self.key, wrong, "set it to false, or use the instruction-tuned model")
        if not tokenizer.is_fast:
            wrong = "its tokenizer cannot tell which tokens of a filled template are the text's own"
            raise UserError(self.key, wrong, "use a model with a tokenizer.json")
        self.before, found, self.after = self._render(MARK).partition(MARK)
        if not found:
            raise UserError(self.key, "its chat template leaves out what the user says", "set it to false")

    @property
    def sha256(self) -> str:
        """What stands around a text, as a digest. Some templates put the date there, so it is taken as it is today."""
        return sha256_text(f"{self.before}{MARK}{self.after}")

    def fill(self, text: str) -> tuple[str, int, int]:
        """The filled template, and where in it the text starts and stops; templates may strip it."""
        whole = self._render(text)
        start, stop = len(self.before), len(whole) - len(self.after)
        framed = whole.startswith(self.before) and whole.endswith(self.after)
        if not framed or whole[start:stop] not in (text, text.strip()):
            raise UserError(
                self.key, f"its chat template changes what the user says ({text[:40]!r})", "set it to false"
            )
        return whole, start, stop

    def _render(self, text: str) -> str:
        said = [{"role": "user", "content": text}]
        return str(self.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))


def open_model(
    folder: Path, config: transformers.PreTrainedConfig, *, dtype: str, attention: str, key: str, kind: Any = AutoModel
) -> Any:
    """The model with the attention that was asked for in every part, or a `UserError`; without its head unless `kind` has one."""
    text = config.get_text_config()
    if text.model_type in SOFT_CAPPED and attention != "eager":
        wrong = f"{text.model_type} caps its attention scores, and '{attention}' may leave that out without a word"
        raise UserError(f"{key}.attention", wrong, "set it to eager")
    if text is not config and getattr(text, "use_bidirectional_attention", None):
        # Some models say so of a language tower, whose texts some implementations of attention would then read in both
        # directions. For an image and its prompt the model has a mask that says the same.
        text.use_bidirectional_attention = False
    mend = "use a whole model that transformers itself knows, as save_pretrained wrote it"
    with opening(f"{key}.source", "the model", mend):
        try:
            model, loaded = kind.from_pretrained(
                folder,
                config=config,
                dtype=getattr(torch, dtype),
                attn_implementation=attention,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise UserError(f"{key}.source", "its tensors have other shapes than its config.json says", mend) from error
    # What a file lacks, transformers fills with random numbers. Poolers alone are often absent, and nothing reads them.
    if missing := sorted(name for name in loaded["missing_keys"] if "pooler" not in name):
        more = f", and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise UserError(f"{key}.source", f"its files lack the tensor {missing[0]}{more}", mend)
    for part in (model, language_tower(model), getattr(model, "vision_tower", model)):
        runs = part.config._attn_implementation
        if runs != attention:
            wrong = f"its {type(part).__name__} runs '{runs}' attention where '{attention}' was asked for"
            raise UserError(f"{key}.attention", wrong, "choose the one it runs")
    return model


def content_mask(batch: Sequence[Tokens]) -> npt.NDArray[np.bool_]:
    """Which positions of a padded batch are content."""
    mask = np.zeros((len(batch), max(map(len, batch))), dtype=bool)
    for row, tokens in enumerate(batch):
        mask[row, : len(tokens)] = tokens.content
    return mask


def language_tower(model: Any) -> Any:
    """What of a model reads words: a part of it in a model that reads more than words, else all of it."""
    return getattr(model, "language_model", model)


def find_blocks(model: nn.Module, depth: int) -> nn.ModuleList:
    """The module list that is the stack of blocks: as long as the model is deep, and not inside another such list."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if not lists:
        raise UserError(type(model).__name__, f"no list of {depth} blocks was found in it", "report this architecture")
    return lists[0]


def made_with() -> dict[str, str]:
    """Versions that the numbers of a pass depend on."""
    return {"torch": torch.__version__, "transformers": transformers.__version__}
