"""A small tokenizer of the kind language models have: byte-pair merges over bytes, so that no text is beyond it.

Like Gemma's, it puts the beginning-of-sequence token in front by itself; whoever tokenizes for a model then needs no
special case for the demo. Padding, end and beginning have ids 0, 1 and 2, as they have there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tessera.demo.folders import filling
from tessera.errors import UserError

PAD, EOS, BOS, UNK = "<pad>", "<eos>", "<bos>", "<unk>"
SPECIAL = [PAD, EOS, BOS, UNK]
LONGEST = 512


def train(texts: Sequence[str], vocabulary: int, folder: Path | str) -> dict[str, Any]:
    """Learn merges from the texts and save a tokenizer that `AutoTokenizer.from_pretrained(folder)` loads.

    The record tells what was reached; a text in any script comes back unchanged from encoding and decoding.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + len(SPECIAL)
    if vocabulary < least:
        raise UserError("demo.vocabulary", f"{vocabulary} has no room for {least} bytes and special tokens", "raise it")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    if tokenizer.get_vocab_size() < vocabulary:
        raise UserError(
            "demo.vocabulary", f"the texts give {tokenizer.get_vocab_size()} tokens, not {vocabulary}", "lower it"
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, SPECIAL.index(BOS))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        padding_side="right",
        model_max_length=LONGEST,
    )
    with filling(folder) as (scratch, record):
        fast.save_pretrained(scratch)
        record.update(vocabulary=vocabulary, texts=len(texts), characters=sum(map(len, texts)))
    return record
