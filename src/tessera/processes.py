"""Telling by its name whether a process that has left a mark on a shared disk is still at work."""

import os
import platform


def own_name() -> str:
    """What this process calls itself in the name of a file: its machine and its number."""
    return f"{platform.node()}.{os.getpid()}"


def machine_of(name: str) -> str:
    """The machine of a process."""
    return name.rpartition(".")[0]


def number_of(name: str) -> int | None:
    """The number of a process on its machine; None where the name is none of ours."""
    number = name.rpartition(".")[2]
    return int(number) if number.isdecimal() else None


def is_alive(name: str) -> bool | None:
    """Whether a process of this machine is alive; None for one of another, of which nothing can be told from here."""
    number = number_of(name)
    if number is None or machine_of(name) != platform.node():
        return None
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
