"""Other people's words where they are shown."""

import pytest

from tessera.errors import UserError
from tessera.quoting import in_a_cell, in_a_line, on_a_page


def test_a_line_of_a_message_is_one_line_that_prints() -> None:
    assert in_a_line("a\n b\tc\r\n\u2028d") == "a b c d"
    assert in_a_line("\x1b[2J\x00\u202e\ud800") == r"\x1b[2J\x00\u202e\ud800"
    assert in_a_line("ünï 漢字 🙂") == "ünï 漢字 🙂"
    assert in_a_line("x" * 10_000_000) == "x" * 997 + "..."


def test_every_part_of_a_users_error_is_such_a_line() -> None:
    told = str(UserError("\x1b]0;where\x07", "wrong\n\u202e", "mend\x00" + "!" * 9999))
    assert told.isprintable()
    assert told.startswith(r"\x1b]0;where\x07: wrong \u202e. Mend: mend\x00!!!")
    assert len(told) < 1100


def test_a_page_marks_what_would_only_be_seen_by_what_it_does() -> None:
    assert on_a_page("a\x00\x1b[31mb\u202ec\u2066\x9b\nd\te") == "a␀␛[31mb[U+202E]c[U+2066][U+009B]\nd\te"
    assert on_a_page("Ünï, 漢字, עברית, 👩‍🚀 <b>&") == "Ünï, 漢字, עברית, 👩‍🚀 <b>&"


@pytest.mark.parametrize("text", ["=1+1", "+1+cmd|' /C calc'!A0", "-1+1", "-", "@SUM(A1)", "\t=1", "\r=1", "-x", "+"])
def test_a_formula_is_shown_and_not_computed(text: str) -> None:
    assert in_a_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a=1", "-1", "+0.5", "-.5", "-1e-05", "1=1", "'=1", "{", "a\n=1"])
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    assert in_a_cell(text) == text
