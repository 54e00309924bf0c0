"""Words of other people on the page: whatever a dataset, a model or a config holds is shown, and does nothing.

Escaping keeps markup from running. It does not keep a character that turns the direction of writing from reordering the
words after it, nor a control character from hiding; those are shown by their name or their picture instead. Marks that
scripts need (joiners, the marks of direction that end with a word) are left alone.
"""

import re

PICTURES = {
    0x7F: "\N{SYMBOL FOR DELETE}",
    **{code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)},
}
# C1 controls, embeddings and overrides of direction, isolates, separators of lines, and the byte order mark.
NAMED = re.compile("[\x80-\x9f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
LONE = re.compile("[\ud800-\udfff]")


def visible(text: str) -> str:
    """`text` with every character that would act on the page shown instead; half a character becomes a whole mark."""
    shown = LONE.sub("\N{REPLACEMENT CHARACTER}", text).translate(PICTURES)
    return NAMED.sub(lambda found: f"[U+{ord(found[0]):04X}]", shown)


def in_line(text: str) -> str:
    """The same for a piece of a text whose line must not break: ends of lines and tabs are shown, too."""
    return (
        visible(text.replace("\r\n", "\n"))
        .replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
        .replace("\t", "\N{RIGHTWARDS ARROW TO BAR}")
    )
