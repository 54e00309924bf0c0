"""The one kind of error a user is meant to read.

A `UserError` is a single line that names the file or config key, what is wrong and the mend. Whatever else is raised is
a bug of ours and keeps its traceback.
"""

from tessera.quoting import in_a_line


class UserError(Exception):
    """A problem with what the user gave us: where it is, what is wrong, and what to do."""

    def __init__(self, where: str, wrong: str, mend: str):
        self.where, self.wrong, self.mend = (in_a_line(str(part)) for part in (where, wrong, mend))
        super().__init__(f"{self.where}: {self.wrong}. Mend: {self.mend}.")


def chain(error: BaseException) -> list[BaseException]:
    """An error and all that led to it, itself first."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found
