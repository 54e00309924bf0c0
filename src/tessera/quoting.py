"""Other people's words where they are shown: in a message, on a page, in a spreadsheet.

Labels, names of subsets and texts come from anywhere. A cell may be megabytes long; a control character may tell a terminal
to clear itself; an override of the writing direction makes the eye read what is not there; a spreadsheet computes what
begins like a formula. Tables for programs keep every character. What people look at goes through here.
"""

import re

LONGEST = 1000

# Control characters but for white space, and what embeds, overrides or isolates the direction of writing.
UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
REPLACED = "\N{REPLACEMENT CHARACTER}"

FORMULA, NUMBER = ("=", "+", "-", "@", "\t", "\r"), re.compile(r"[+-]?\d*\.?\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def in_a_line(text: str) -> str:
    """A text as part of a message: on one line, cut where it is long, with what does not print spelled out."""
    line = " ".join(text.split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - 3]}..."
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def on_a_page(text: str) -> str:
    """A text with a mark in the place of each character that would be seen by what it does to the others."""
    return UNSEEN.sub(REPLACED, text)


def in_a_cell(text: str) -> str:
    """A text as a spreadsheet shows it: with an apostrophe before what it would take for a formula."""
    return f"'{text}" if text.startswith(FORMULA) and not NUMBER.fullmatch(text) else text
