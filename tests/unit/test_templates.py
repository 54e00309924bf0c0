"""Texts put together from columns."""

import pytest

from tessera import templates
from tessera.errors import UserError


def test_a_template_names_its_columns_and_is_filled_with_them() -> None:
    template = "Q: {goal}\nA {{or}} B: {goal} {two words}"
    assert templates.columns(template, "k") == ["goal", "two words"]
    filled = templates.fill(template, {"goal": "{x} <b>", "two words": "end"})
    assert filled == "Q: {x} <b>\nA {or} B: {x} <b> end"
    assert templates.columns("yes", "k") == []


@pytest.mark.parametrize("template", ["{", "}", "{}", "{a!r}", "{a:>3}", "{a", "a}"])
def test_what_is_no_template_is_named(template: str) -> None:
    with pytest.raises(UserError, match=r"^k: .* is no template"):
        templates.columns(template, "k")


def test_a_column_is_a_name_and_never_an_expression() -> None:
    template = "{a.__class__} {b[0]}"
    assert templates.columns(template, "k") == ["a.__class__", "b[0]"]
    assert templates.fill(template, {"a.__class__": "x", "b[0]": "y"}) == "x y"
