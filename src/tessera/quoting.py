"""Other people's words where they are shown: in a message, on a page, in a spreadsheet.

Labels, names of subsets and texts come from anywhere. A cell may be megabytes long; a control character may tell a terminal
to clear itself; an override of the writing direction makes the eye read what is not there; a spreadsheet computes what
begins like a formula. Tables for programs keep every character. What people look at goes through here.
"""

import re

LONGEST = 1000

# Characters that act on what stands beside them: most have a picture of their own; C1 controls, embeddings, overrides and
# isolates of direction, separators of lines and the byte order mark have only their number. Marks that scripts need
# (joiners, the marks of direction that end with a word) act on nothing else.
PICTURES = {
    0x7F: "\N{SYMBOL FOR DELETE}",
    **{code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)},
}
NUMBERED = re.compile("[\x80-\x9f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
LONE = re.compile("[\ud800-\udfff]")

FORMULA, NUMBER = ("=", "+", "-", "@", "\t", "\r"), re.compile(r"[+-]?\d*\.?\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def in_a_line(text: str) -> str:
    """A text as part of a message: on one line, cut where it is long, with what does not print spelled out."""
    line = " ".join(text.split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - 3]}..."
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def on_a_page(text: str) -> str:
    """A text with every character that would act on the page shown instead; half a character becomes a whole mark."""
    shown = LONE.sub("\N{REPLACEMENT CHARACTER}", text).translate(PICTURES)
    return NUMBERED.sub(lambda found: f"[U+{ord(found[0]):04X}]", shown)


def in_a_strip(text: str) -> str:
    """The same for a piece of a text whose line must not break: ends of lines and tabs are shown, too."""
    return (
        on_a_page(text.replace("\r\n", "\n"))
        .replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
        .replace("\t", "\N{RIGHTWARDS ARROW TO BAR}")
    )


def in_a_cell(text: str) -> str:
    """A text as a spreadsheet shows it: with an apostrophe before what it would take for a formula."""
    return f"'{text}" if text.startswith(FORMULA) and not NUMBER.fullmatch(text) else text
