"""Digests change when, and only when, a result may change."""

import os
from pathlib import Path

import pytest

from tessera import fingerprint
from tessera.errors import UserError


@pytest.fixture(autouse=True)
def fresh() -> None:
    fingerprint.code.cache_clear()
    fingerprint._read.cache_clear()


def digest(script: Path, text: str) -> str:
    script.write_text(text)
    fingerprint.code.cache_clear()
    fingerprint._read.cache_clear()
    return fingerprint.code(script)


def test_comments_docstrings_and_formatting_leave_the_code_digest(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    plain = digest(script, 'def f(a, b):\n    """One."""\n    return a + b\n')
    assert (
        digest(script, '"""New."""\n# why\ndef f(\n  a,b,\n):\n    """Two."""\n\n    return (a + b)  # sum\n') == plain
    )


def test_a_changed_operation_changes_the_code_digest(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    assert digest(script, "x = 1 + 2\n") != digest(script, "x = 1 - 2\n")


def test_a_module_that_is_imported_through_another_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "tessera"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "outer.py").write_text("def f():\n    from tessera.inner import g\n    return g()\n")
    (package / "inner.py").write_text("def g():\n    return 1\n")
    monkeypatch.setattr(fingerprint, "PACKAGE", package)
    script = tmp_path / "s.py"
    before = digest(script, "from tessera import outer\n")
    (package / "inner.py").write_text("def g():\n    return 2\n")
    assert digest(script, "from tessera import outer\n") != before
    (package / "unrelated.py").write_text("x = 1\n")
    after = digest(script, "from tessera import outer\n")
    (package / "unrelated.py").write_text("x = 2\n")
    assert digest(script, "from tessera import outer\n") == after


def test_touching_a_source_leaves_its_digest_and_changing_it_does_not(tmp_path: Path) -> None:
    source, memory = tmp_path / "a.csv", tmp_path / "memory.json"
    source.write_text("a,b\n")
    first = fingerprint.source("key", str(source), memory)
    os.utime(source, (1, 1))
    assert fingerprint.source("key", str(source), memory) == first
    source.write_text("a,c\n")
    assert fingerprint.source("key", str(source), memory) != first


def test_an_unchanged_source_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, memory = tmp_path / "a.csv", tmp_path / "memory.json"
    source.write_text("a,b\n")
    first = fingerprint.source("key", str(source), memory)
    monkeypatch.setattr(fingerprint, "sha256_file", lambda path: pytest.fail("read again"))
    assert fingerprint.source("key", str(source), memory) == first


def test_a_folder_is_its_files_and_their_names(tmp_path: Path) -> None:
    folder, memory = tmp_path / "model", tmp_path / "memory.json"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = fingerprint.source("key", str(folder), memory)
    (folder / "a").rename(folder / "b")
    assert fingerprint.source("key", str(folder), memory) != first


def test_a_source_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datasets\.x\.source: there is no .*nowhere\.csv.* Mend: "):
        fingerprint.source("datasets.x.source", str(tmp_path / "nowhere.csv"), tmp_path / "memory.json")
