"""What a stage's results depend on, as digests that survive what does not matter.

Snakemake compares files by time and knows nothing of imported modules. A rule therefore carries two kinds of digest in
its params: one of the code it runs, which ignores comments, docstrings and formatting, and one of each local source it
reads, which ignores time stamps. A digest is what changes when, and only when, the result may change.
"""

import ast
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tessera.files import replacing, sha256_file, sha256_text

PACKAGE = Path(__file__).parent


class Memory:
    """What was worked out about files, kept by path, size and time so that each is read once per change.

    It saves time and nothing else: without its file, or with one that cannot be written, everything is worked out again.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self.known: dict[str, Any] = {}
        self.changed = False
        if path and path.is_file():
            self.known = _known(path)

    def of(self, file: Path, what: str, work_out: Callable[[Path], Any]) -> Any:
        stat = file.stat()
        stamp = f"{what}|{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if stamp not in self.known:
            self.known[stamp] = work_out(file)
            self.changed = True
        return self.known[stamp]

    def save(self) -> None:
        """Write what is new, if there is a place for it."""
        if self.path and self.changed and os.access(self.path.parent, os.W_OK):
            # A disk may be full all the same, and another run may be writing this file, too.
            with suppress(OSError), replacing(self.path) as partial:
                partial.write_text(json.dumps(self.known, indent=0, sort_keys=True), encoding="utf-8")


def _known(path: Path) -> dict[str, Any]:
    """What a memory file holds; nothing if it is damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


def code(script: Path, memory: Memory) -> str:
    """Digest of a script and of every module of this package that it imports, directly or through another."""
    seen: dict[Path, str] = {}
    pending = [script]
    while pending:
        path = pending.pop()
        if path not in seen:
            imported, seen[path] = memory.of(path, "code", _read)
            pending += [PACKAGE / name for name in imported]
    return sha256_text("\n".join(sorted(seen.values())))[:16]


def _read(path: Path) -> tuple[list[str], str]:
    """What a module imports of this package, and the digest of its syntax tree without positions and docstrings."""
    spelled: list[str] = []
    imported: set[Path] = set()
    _spell(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)), spelled, imported)
    return sorted(str(file.relative_to(PACKAGE)) for file in imported), sha256_text(" ".join(spelled))


def _spell(node: ast.AST, spelled: list[str], imported: set[Path]) -> None:
    """Write a node and all below it, less docstrings, and note what is imported. With `ast` this takes three slow walks."""
    kind = type(node)
    spelled.append(kind.__name__)
    if kind in (ast.Import, ast.ImportFrom):
        imported.update(_imports(node))
    for name in kind._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            start = int(name == "body" and kind in DOCUMENTED and _is_text(value))
            spelled.append("[")
            for each in value[start:]:
                if isinstance(each, ast.AST):
                    _spell(each, spelled, imported)
                else:
                    spelled.append(repr(each))
            spelled.append("]")
        elif isinstance(value, ast.AST):
            _spell(value, spelled, imported)
        else:
            spelled.append(repr(value))


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _is_text(body: list[ast.stmt]) -> bool:
    """Whether a body begins with a docstring."""
    first = body[0] if body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _imports(node: ast.AST) -> Iterator[Path]:
    if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
        for alias in node.names:
            yield from _module_files(f"{node.module}.{alias.name}")
    elif isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == PACKAGE.name:
                yield from _module_files(alias.name)


def _module_files(name: str) -> Iterator[Path]:
    """The files that importing `name` runs: each package's __init__ on the way, and the module itself if it is one."""
    path = PACKAGE
    for part in name.split(".")[1:]:
        if (path / f"{part}.py").is_file():
            yield path / f"{part}.py"
            return
        if not (path / part / "__init__.py").is_file():
            return
        path = path / part
        yield path / "__init__.py"


def source(path: Path, memory: Memory) -> str:
    """Digest of a local file's or folder's content."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path)}\0{memory.of(file, 'content', sha256_file)}\n".encode())
    return digest.hexdigest()
