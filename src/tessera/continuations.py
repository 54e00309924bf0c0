"""What a language model says after a prompt: how likely it finds given continuations, and the one that it chooses itself.

The whole model runs here, head and all. A head costs more than a block where the vocabulary is large, so it is handed the
positions alone of which a word is asked for, and what the model does to logits behind its head remains its own doing.

Candidates are padded on the right, where a causal model never looks; prompts that a model goes on from are padded on the
left, so that all of them end in one place. Positions count from a text's own first token either way.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from tessera.errors import UserError
from tessera.job import progress
from tessera.memory import out_of_memory, release
from tessera.models import TOKENIZED_TOGETHER, ChatTemplate, open_model

logger = logging.getLogger("tessera")

Ids = npt.NDArray[np.int64]
Side = Literal["left", "right"]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt with one continuation. `own` marks the tokens that are the continuation's."""

    ids: Ids
    own: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Said:
    """What a model goes on with to the end of the line, and how sure it is: the geometric mean of its tokens' probabilities."""

    text: str
    confidence: float


class Speaker:
    """A language model with its head and tokenizer, opened to be asked."""

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str,
        attention: str,
        max_length: int,
        device: str,
        key: str,
        budget: int,
        chat: bool = False,
    ):
        transformers.utils.logging.disable_progress_bar()
        self.dtype, self.device, self.key, self.budget = dtype, device, key, budget
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not self.tokenizer.is_fast:
            wrong = "its tokenizer cannot tell which tokens are those of an option"
            raise UserError(key, wrong, "use a model with a tokenizer.json")
        self.template = ChatTemplate(self.tokenizer, key) if chat else None
        self.model: Any = _open(folder, dtype=dtype, attention=attention, key=key).to(device)
        context = int(getattr(self.model.config, "max_position_embeddings", 0) or 0)
        self.context = context or max_length
        self.limit = min(max_length, self.context)
        self.head = self.model.get_output_embeddings()
        self.ends = self._all_ends()
        # What a folder says about sampling and penalties is put aside: the answer is what the model itself finds likeliest.
        self.model.generation_config = GenerationConfig()
        self.takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        pad = self.tokenizer.pad_token_id
        self.pad_id = pad if pad is not None else (self.tokenizer.eos_token_id or 0)
        self._require_causal()

    # --- tokens ---

    def candidates(self, prompts: Sequence[str], lead: str, options: Sequence[str]) -> list[Candidate]:
        """Each prompt with its option behind `lead`, tokenised as one text.

        To most tokenizers the spaces before a word are part of it, so those before an option count as its own.
        """
        before = [written + lead for written in self._written(prompts)]
        whole = [start + option for start, option in zip(before, options, strict=True)]
        return [
            Candidate(ids, (places[:, 0] < len(text)) & (places[:, 1] > len(start.rstrip(" "))))
            for (ids, places), start, text in zip(self._encode(whole), before, whole, strict=True)
        ]

    def prompts(self, texts: Sequence[str]) -> list[Ids]:
        """Each prompt's tokens. What a tokenizer puts behind a text to end it is left out, so that the model can go on."""
        found = []
        for ids, places in self._encode(self._written(texts)):
            end = len(ids)
            while self.template is None and end > 1 and places[end - 1, 1] == 0:
                end -= 1
            found.append(ids[:end])
        return found

    def knows(self, ids: Ids) -> bool:
        """Whether the model has a vector for every token; a tokenizer may know more."""
        return bool(ids.max(initial=0) < self.model.get_input_embeddings().num_embeddings)

    def _written(self, prompts: Sequence[str]) -> list[str]:
        template = self.template
        return list(prompts) if template is None else [template.fill(prompt)[0] for prompt in prompts]

    def _encode(self, texts: Sequence[str]) -> Iterator[tuple[Ids, Ids]]:
        """Tokens and the characters that each covers. BOS comes first where there is one, and never twice."""
        bos = None if self.template is not None else self.tokenizer.bos_token_id
        for start in range(0, len(texts), TOKENIZED_TOGETHER):
            encoded = self.tokenizer(
                list(texts[start : start + TOKENIZED_TOGETHER]),
                add_special_tokens=self.template is None,
                truncation=False,
                verbose=False,
                return_offsets_mapping=True,
            )
            for ids, places in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
                if bos is not None and ids[:1] != [bos]:
                    ids, places = [bos, *ids], [(0, 0), *places]  # noqa: PLW2901 - the same text with its BOS
                yield np.array(ids, dtype=np.int64), np.array(places, dtype=np.int64).reshape(-1, 2)

    # --- how likely ---

    def log_likelihoods(
        self, questions: Sequence[Sequence[Candidate]], names: Sequence[str], side: Side = "right"
    ) -> list[list[float]]:
        """The log-probability of each candidate's own tokens after what stands before them.

        A question's candidates share a batch unless they alone are more than the memory holds.
        """
        sizes = [max(map(len, candidates)) for candidates in questions]
        order = sorted(range(len(questions)), key=lambda question: -sizes[question])
        flat = [(question, candidate) for question in order for candidate in questions[question]]
        found: list[list[float]] = [[] for _ in questions]

        def ask(batch: Sequence[tuple[int, Candidate]]) -> list[float]:
            likely = self._log_likelihoods([candidate for _, candidate in batch], side)
            for (question, _), value in zip(batch, likely, strict=True):
                if not np.isfinite(value):
                    self._not_finite(names[question])
            return likely

        def together(position: int) -> bool:
            return flat[position - 1][0] == flat[position][0]

        likely = self._in_batches(flat, lambda one: sizes[one[0]], together, lambda one: names[one[0]], ask)
        for (question, _), value in zip(flat, likely, strict=True):
            found[question].append(value)
        return found

    @torch.inference_mode()
    def _log_likelihoods(self, batch: Sequence[Candidate], side: Side) -> list[float]:
        given = self._inputs([candidate.ids for candidate in batch], side)
        own = np.zeros(given["input_ids"].shape, dtype=bool)
        for row, candidate in enumerate(batch):
            own[row, _span(candidate.ids, own.shape[1], side)] = candidate.own
        # A position's logits are about the token behind it.
        asked = np.zeros_like(own)
        asked[:, :-1] = own[:, 1:]
        logits = self._logits(given, torch.from_numpy(asked).to(self.device))
        targets = given["input_ids"][torch.from_numpy(own).to(self.device)]
        each = logits.float().log_softmax(dim=-1).gather(1, targets[:, None])[:, 0].double().cpu().numpy()
        rows = np.nonzero(own)[0]
        return [float(value) for value in np.bincount(rows, weights=each, minlength=len(batch))]

    def _logits(self, given: dict[str, Tensor], asked: Tensor) -> Tensor:
        """The model's logits [positions, vocabulary] at the positions asked for."""

        def narrow(module: Any, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (states[0][asked][None], *states[1:])

        hook = self.head.register_forward_pre_hook(narrow)
        try:
            logits: Tensor = self.model(**given, use_cache=False).logits
        finally:
            hook.remove()
        if logits.shape[:2] != (1, int(asked.sum())):
            wrong = f"the head of {type(self.model).__name__} does not read the states of its tokens one by one"
            raise UserError(self.key, wrong, "use a model of another architecture")
        return logits[0]

    # --- what it says ---

    def go_on(self, prompts: Sequence[Ids], names: Sequence[str], max_tokens: int) -> list[Said]:
        """What the model greedily says after each prompt, until the line or the text ends or there are `max_tokens`."""
        order = sorted(range(len(prompts)), key=lambda prompt: -len(prompts[prompt]))

        def ask(batch: Sequence[int]) -> list[Said]:
            said = self._go_on([prompts[prompt] for prompt in batch], max_tokens)
            for prompt, one in zip(batch, said, strict=True):
                if not np.isfinite(one.confidence):
                    self._not_finite(names[prompt])
            return said

        said = self._in_batches(
            order,
            lambda prompt: len(prompts[prompt]) + max_tokens,
            lambda position: False,
            lambda prompt: names[prompt],
            ask,
        )
        found = dict(zip(order, said, strict=True))
        return [found[prompt] for prompt in range(len(prompts))]

    @torch.inference_mode()
    def _go_on(self, batch: Sequence[Ids], max_tokens: int) -> list[Said]:
        given = self._inputs(batch, "left")
        sure, line = _Sureness(), _EndOfLine(self.tokenizer)
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_tokens,
            eos_token_id=self.ends or None,
            pad_token_id=self.pad_id,
            bos_token_id=self.tokenizer.bos_token_id,
        )
        ids = self.model.generate(
            **{name: values for name, values in given.items() if name != "position_ids"},
            generation_config=settings,
            logits_processor=LogitsProcessorList([sure]),
            stopping_criteria=StoppingCriteriaList([line]),
        )
        spoken = ids[:, given["input_ids"].shape[1] :].cpu().numpy()
        likely = torch.stack(sure.steps, dim=1).double().cpu().numpy()
        return [self._said(row, steps, line) for row, steps in zip(spoken, likely, strict=True)]

    def _said(self, ids: Ids, likely: npt.NDArray[np.float64], line: "_EndOfLine") -> Said:
        length = next((n for n, token in enumerate(ids, 1) if token in self.ends or line.ends_at(int(token))), len(ids))
        text = self.tokenizer.decode(ids[:length], skip_special_tokens=True)
        return Said(text.split("\n")[0].strip(), float(np.exp(likely[:length].mean())))

    def _all_ends(self) -> list[int]:
        """The tokens that end a text; a tuned model may have one of its own for the end of its turn."""
        config = self.model.config
        told = [self.tokenizer.eos_token_id, config.eos_token_id, self.model.generation_config.eos_token_id]
        flat = [token for ends in told for token in (ends if isinstance(ends, list) else [ends])]
        return sorted({int(token) for token in flat if token is not None})

    # --- batches ---

    def _inputs(self, batch: Sequence[Ids], side: Side) -> dict[str, Tensor]:
        length = max(map(len, batch))
        ids = np.full((len(batch), length), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(batch), length), dtype=np.int64)
        for row, own in enumerate(batch):
            ids[row, _span(own, length, side)] = own
            mask[row, _span(own, length, side)] = 1
        given = {"input_ids": ids, "attention_mask": mask}
        if self.takes_positions:
            given["position_ids"] = np.maximum(mask.cumsum(axis=1) - 1, 0)
        return {name: torch.from_numpy(values).to(self.device) for name, values in given.items()}

    def _in_batches(
        self,
        items: Sequence[Item],
        size: Callable[[Item], int],
        together: Callable[[int], bool],
        name: Callable[[Item], str],
        ask: Callable[[Sequence[Item]], list[Result]],
    ) -> list[Result]:
        """`ask` of all items, which come largest first, in batches of `budget` tokens, padding included.

        The budget is halved whenever a batch does not fit the memory. `together` tells of a position whether its item
        belongs to the one before.
        """
        found: list[Result] = []
        with progress(items, f"asking {self.key}", unit="text") as bar:
            while len(found) < len(items):
                start = len(found)
                batch = items[start : self._end(items, start, size(items[start]), together)]
                try:
                    found += ask(batch)
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    if len(batch) == 1:
                        mend = "lower models.*.max_length, or give it a device with more memory"
                        wrong = f"its {size(batch[0])} tokens alone do not fit the memory"
                        raise UserError(f"example '{name(batch[0])}'", wrong, mend) from error
                    self.budget = max(1, len(batch) // 2) * size(batch[0])
                    logger.warning("out of memory with %d texts; going on with half as many", len(batch))
                    release()
                else:
                    bar.update(len(batch))
        return found

    def _end(self, items: Sequence[Item], start: int, size: int, together: Callable[[int], bool]) -> int:
        most = min(len(items), start + max(1, self.budget // size))
        end = most
        while start < end < len(items) and together(end):
            end -= 1
        return end if end > start else most

    def _not_finite(self, name: str) -> None:
        wrong = f"it gives values that are not finite in {self.dtype}"
        raise UserError(f"example '{name}'", wrong, "run the model in bfloat16 or float32 (models.*.dtype)")

    @torch.inference_mode()
    def _require_causal(self) -> None:
        """Two texts that differ in their last token: a model that looks ahead sees there the very option it is to judge."""
        size = self.model.get_input_embeddings().num_embeddings
        given = self._inputs([np.array([0, 1, 2]) % size, np.array([0, 1, 3]) % size], "right")
        before = torch.tensor([[False, True, False]] * 2, device=self.device)
        first = self._logits(given, before).float()
        if not torch.allclose(first[0], first[1], rtol=1e-2, atol=1e-2):
            wrong = f"{type(self.model).__name__} sees the words that it is to predict"
            raise UserError(self.key, wrong, "ask a model that predicts the next token")


class _Sureness:
    """Notes the log-probability of the likeliest token at each step, and changes nothing."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.steps.append(scores.float().log_softmax(dim=-1).amax(dim=-1))
        return scores


class _EndOfLine:
    """Ends a text after a token with a line break in it."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.known: dict[int, bool] = {}

    def ends_at(self, token: int) -> bool:
        if token not in self.known:
            self.known[token] = "\n" in self.tokenizer.decode([token])
        return self.known[token]

    def __call__(self, input_ids: Tensor, scores: Any, **others: Any) -> Tensor:
        ended = [self.ends_at(token) for token in input_ids[:, -1].tolist()]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)


def _span(own: Ids, length: int, side: Side) -> slice:
    """Where a text stands in a row of a padded batch."""
    return slice(0, len(own)) if side == "right" else slice(length - len(own), length)


def _open(folder: Path, *, dtype: str, attention: str, key: str) -> Any:
    """The model with its head, in the attention that was asked for, or a `UserError`."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.get_text_config() is not config or type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        wrong = (
            f"a model of type {config.model_type} is no language model that predicts the next token and nothing else"
        )
        raise UserError(key, wrong, "ask another model")
    model = open_model(folder, config, dtype=dtype, attention=attention, key=key, kind=AutoModelForCausalLM)
    return model.eval().requires_grad_(False)
