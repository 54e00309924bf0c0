"""The tokens of a model, as pieces of text that a reader can read."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

# What a decoder writes for bytes that are no text.
NO_TEXT = "\ufffd"


class Pieces:
    """The piece of text that each token of an example stands for, the space before it included.

    A decoder may drop the space at the beginning of a text, so tokens are decoded behind another one. A character may take
    several tokens: it stands with the last of them, and before it stands what is whole already, or nothing. What never
    becomes a character is shown as the tokenizer spells it. So the pieces of a text, one after the other, read as the text.
    """

    def __init__(self, folder: Path) -> None:
        self._open(folder)
        self.before = self.decode(self.anchor)
        self.text = cache(self._text)

    def _open(self, folder: Path) -> None:
        tokenizer: Any
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self.anchor = tokenizer.encode("a", add_special_tokens=False).ids
            self.name = tokenizer.id_to_token
            self.decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=False)
            return
        # It takes seconds to import, and is needed for tokenizers of other forms alone.
        from transformers import AutoTokenizer  # noqa: PLC0415

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
        self.name = tokenizer.convert_ids_to_tokens
        self.decode = lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    def of(self, tokens: Sequence[int]) -> list[str]:
        """A piece for each token."""
        found: list[str] = []
        begun: tuple[int, ...] = ()
        told = ""
        for token in tokens:
            begun = (*begun, token)
            text = self.text(begun)
            whole = text.rstrip(NO_TEXT)
            found.append(whole[len(told) :])
            begun, told = ((), "") if whole == text else (begun, whole)
        first = len(found) - len(begun)
        spelled = [piece or self.name(token) or f"<{token}>" for piece, token in zip(found[first:], begun, strict=True)]
        return found[:first] + spelled

    def _text(self, tokens: tuple[int, ...]) -> str:
        whole = self.decode([*self.anchor, *tokens])
        return whole[len(self.before) :] if whole.startswith(self.before) else self.decode(list(tokens))
