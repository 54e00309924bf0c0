"""What a stage's results depend on, as digests that survive what does not matter.

Snakemake compares files by time and knows nothing of imported modules. A rule therefore carries two kinds of digest in
its params: one of the code it runs, which ignores comments, docstrings and formatting, and one of each local source it
reads, which ignores time stamps. A digest is what changes when, and only when, the result may change.
"""

import ast
import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tessera.errors import UserError
from tessera.files import replacing, sha256_file, sha256_text

PACKAGE = Path(__file__).parent


@cache
def code(script: Path) -> str:
    """Digest of a script and of every module of this package that it imports, directly or through another."""
    seen: dict[str, str] = {}
    pending = [script]
    while pending:
        path = pending.pop()
        if str(path) not in seen:
            imported, seen[str(path)] = _read(path)
            pending += imported
    return sha256_text("\n".join(sorted(seen.values())))[:16]


@cache
def _read(path: Path) -> tuple[list[Path], str]:
    """What a module imports of this package, and the digest of its syntax tree without positions and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    imported = list(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return imported, sha256_text(ast.dump(tree))


def _imports(tree: ast.Module) -> Iterator[Path]:
    for node in ast.walk(tree):
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


def source(key: str, path: str, cache_file: Path) -> str:
    """Digest of a local file's or folder's content, remembered by size and time so that it is read once per change."""
    root = Path(path)
    if not root.exists():
        raise UserError(
            key, f"there is no '{path}' in {Path.cwd().name}/", "correct the path or run from the right folder"
        )
    remembered: dict[str, str] = {}
    if cache_file.is_file():
        remembered = json.loads(cache_file.read_text(encoding="utf-8"))
    fresh: dict[str, str] = {}
    files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        stamp = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        fresh[stamp] = remembered.get(stamp) or sha256_file(file)
        digest.update(f"{file.relative_to(root)}\0{fresh[stamp]}\n".encode())
    if not fresh.keys() <= remembered.keys():
        _remember(cache_file, remembered | fresh)
    return digest.hexdigest()


def _remember(cache_file: Path, stamps: dict[str, str]) -> None:
    # The cache saves time and nothing else, so a results folder that cannot be written to is left alone.
    if os.access(cache_file.parent, os.W_OK):
        with replacing(cache_file) as partial:
            partial.write_text(json.dumps(stamps, indent=0, sort_keys=True), encoding="utf-8")
