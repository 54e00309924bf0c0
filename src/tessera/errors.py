"""The one kind of error a user is meant to read.

A `UserError` is a single line that names the file or config key, what is wrong and the mend. Whatever else is raised is
a bug of ours and keeps its traceback.

What it quotes are other people's words: a cell may be megabytes long, and a control character in it may tell a terminal to
clear itself or a reader's eye to go backwards. So what is long is cut, and what does not print is spelled out.
"""

LONGEST = 1000


class UserError(Exception):
    """A problem with what the user gave us: where it is, what is wrong, and what to do."""

    def __init__(self, where: str, wrong: str, mend: str):
        self.where, self.wrong, self.mend = (on_a_line(str(part)) for part in (where, wrong, mend))
        super().__init__(f"{self.where}: {self.wrong}. Mend: {self.mend}.")


def on_a_line(text: str) -> str:
    """A text of whatever origin as part of a line that is safe to print."""
    line = " ".join(text.split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - 3]}..."
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)
