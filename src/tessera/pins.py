"""Which commit of a repository a config means: looked up once, and written into the config file.

A config is pinned, so that a rerun reads the same. One that is written before anybody has asked the Hub says `unpinned`
in the place of a commit: it can be planned, and the workflow refuses to bring anything in. This module asks the Hub for
the newest commit of each such repository and puts it there. Nothing else in the file changes, comments included.

`python -m tessera.pins config/paper.yaml`
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from huggingface_hub import HfApi

from tessera.config import UNPINNED
from tessera.config_file import check_files
from tessera.errors import UserError
from tessera.files import replacing
from tessera.hub import hub_trouble

KINDS = {"datasets": "dataset", "models": "model"}


def pin(path: Path, api: HfApi | None = None) -> dict[str, str]:
    """Write the newest commits into a config file wherever it says `unpinned`; returns repository -> commit."""
    check_files([path])
    text = path.read_text(encoding="utf-8")
    api = api or HfApi()
    commits: dict[tuple[str, str], str] = {}
    places: dict[tuple[int, int], str] = {}
    for key, kind, repository, node in _unpinned(yaml.compose(text, yaml.SafeLoader)):
        if (kind, repository) not in commits:
            commits[kind, repository] = _newest(api, key, kind, repository)
        places[node.start_mark.index, node.end_mark.index] = commits[kind, repository]
    # From the end, so that what is still to be replaced stays where it was found. Quoted, as 40 digits may be a number.
    for (start, end), commit in sorted(places.items(), reverse=True):
        text = f'{text[:start]}"{commit}"{text[end:]}'
    if places:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return {repository: commit for (_, repository), commit in commits.items()}


def _unpinned(root: yaml.Node | None) -> Iterator[tuple[str, str, str, yaml.Node]]:
    """Key of the source, kind of repository, its name and the place of its revision, for all that are not pinned."""
    for section, kind in KINDS.items():
        for name, entry in _children(_children(root).get(section)).items():
            source = _children(_children(entry).get("source"))
            repository, revision = source.get("hub"), source.get("revision")
            if repository is not None and revision is not None and revision.value == UNPINNED:
                yield f"{section}.{name}.source", kind, repository.value, revision


def _children(node: yaml.Node | None) -> dict[str, yaml.Node]:
    """Key -> value of a mapping; of anything else nothing, which is for the check of the config to judge."""
    return {key.value: value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}


def _newest(api: HfApi, key: str, kind: str, repository: str) -> str:
    with hub_trouble(key, repository):
        commit = api.repo_info(repository, repo_type=kind).sha
    if not commit:
        raise UserError(f"{key}.revision", f"the Hub names no commit of '{repository}'", "write one from its page")
    return commit


def main(arguments: list[str]) -> int:
    """Pin the config files given; 0 if all went well."""
    try:
        for path in map(Path, arguments):
            pinned = pin(path)
            lines = [f"{path}: {len(pinned)} repositories pinned"]
            lines += [f"  {repository} at {commit}" for repository, commit in pinned.items()]
            sys.stdout.write("\n".join(lines) + "\n")
        if not arguments:
            raise UserError("tessera.pins", "no config file is given", "name one, such as config/paper.yaml")
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
