"""The last words of a run on the terminal: its findings, read back from the file that the run wrote.

The Snakefile imports this while it is parsed, so nothing here may import more than the standard library.
"""

import json
import textwrap
from pathlib import Path

WIDTH = 100


def summary_lines(path: Path | str) -> list[str]:
    """The findings as lines for a terminal; none where a run was not asked for them and the file is not there."""
    try:
        findings = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    lines = []
    for number, finding in enumerate(findings, start=1):
        lines += textwrap.wrap(f"{number}. {finding['title']}", WIDTH, subsequent_indent="   ")
        lines += textwrap.wrap(finding["sentence"], WIDTH, initial_indent="   ", subsequent_indent="   ")
        for point in finding["points"]:
            lines += textwrap.wrap(point, WIDTH, initial_indent="   - ", subsequent_indent="     ")
    return lines
