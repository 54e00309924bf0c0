"""The plan of captures: what is kept, what is owed, and that every process of a run comes to the same."""

from pathlib import Path

from tessera.plan import Head, capture_id, claim, hidden_head, plan

A, B, C = hidden_head(1), Head("sae-b", 2, "sae-b"), Head("sae-c", 3, "sae-c")


def always(_sae: str) -> bool:
    return True


def test_with_nothing_on_disk_all_heads_form_one_capture(tmp_path: Path) -> None:
    assert plan(tmp_path, [A, B, C], always) == {capture_id([A, B, C]): (A, B, C)}


def test_the_order_of_heads_does_not_name_the_capture(tmp_path: Path) -> None:
    assert plan(tmp_path, [C, A, B], always) == plan(tmp_path, [A, B, C], always)


def test_an_added_head_forms_a_capture_of_its_own(tmp_path: Path) -> None:
    claim(tmp_path / capture_id([A, B]), [A, B])
    assert plan(tmp_path, [A, B, C], always) == {capture_id([A, B]): (A, B), capture_id([C]): (C,)}


def test_dropping_a_head_leaves_its_capture_as_it_is(tmp_path: Path) -> None:
    claim(tmp_path / capture_id([A, B]), [A, B])
    assert plan(tmp_path, [A], always) == {capture_id([A, B]): (A, B)}


def test_a_capture_that_serves_no_wanted_head_is_not_needed(tmp_path: Path) -> None:
    claim(tmp_path / capture_id([B]), [B])
    assert plan(tmp_path, [A], always) == {capture_id([A]): (A,)}


def test_the_plan_is_the_same_while_a_manifest_is_absent(tmp_path: Path) -> None:
    # A claim is all that a running or rerunning capture shows: its manifest comes last, and is removed first.
    before = plan(tmp_path, [A, B, C], always)
    (name,) = before
    claim(tmp_path / name, before[name])
    assert plan(tmp_path, [A, B, C], always) == before


def test_two_captures_may_hold_the_same_head_and_one_serves_it(tmp_path: Path) -> None:
    claim(tmp_path / "0000000000", [A, B])
    claim(tmp_path / "1111111111", [B, C])
    assert set(plan(tmp_path, [A, B, C], always)) == {"0000000000", "1111111111"}


def test_a_claim_on_an_sae_that_is_gone_is_void(tmp_path: Path) -> None:
    claim(tmp_path / capture_id([A, B]), [A, B])
    assert plan(tmp_path, [A], lambda sae: sae != "sae-b") == {capture_id([A]): (A,)}


def test_an_sae_whose_layer_was_corrected_is_owed_again(tmp_path: Path) -> None:
    claim(tmp_path / capture_id([B]), [B])
    moved = Head("sae-b", 4, "sae-b")
    assert plan(tmp_path, [moved], always) == {capture_id([moved]): (moved,)}
