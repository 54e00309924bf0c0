"""Digests change when, and only when, a result may change."""

import os
from pathlib import Path

import pytest

from tessera import fingerprint
from tessera.fingerprint import Memory


def digest(script: Path, text: str) -> str:
    script.write_text(text)
    return fingerprint.code(script, Memory())


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
    path = tmp_path / "a.csv"
    path.write_text("a,b\n")
    memory = Memory()
    first = fingerprint.source(path, memory)
    os.utime(path, (1, 1))
    assert fingerprint.source(path, memory) == first
    path.write_text("a,c\n")
    assert fingerprint.source(path, memory) != first


def test_an_unchanged_source_is_read_once_over_several_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n")
    memory = Memory(tmp_path / "memory.json")
    first = fingerprint.source(path, memory)
    memory.save()
    monkeypatch.setattr(fingerprint, "sha256_file", lambda path: pytest.fail("read again"))
    assert fingerprint.source(path, Memory(tmp_path / "memory.json")) == first


def test_a_memory_that_has_no_place_to_be_written_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n")
    memory = Memory(tmp_path / "nowhere/memory.json")
    fingerprint.source(path, memory)
    memory.save()
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_is_its_files_and_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = fingerprint.source(folder, Memory())
    (folder / "a").rename(folder / "b")
    assert fingerprint.source(folder, Memory()) != first
