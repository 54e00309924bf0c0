"""What the jobs that run here may take together: the memory of the machine, or the cores and memory that SLURM gave; and
what a job takes where the config says how much that is.

The Snakefile imports this while it is parsed, so nothing here may import more than the standard library.
"""

import os
from pathlib import Path

# Where the kernel says what a container may take: the second version of its control groups, and the first.
LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
# What is left to the system and to Snakemake itself.
KEPT = 0.1
# Megabytes of sae-lens itself; the copies that it makes of encoder and decoder, in float32; and how wide a model is taken to
# be before it is here: as one of eight billion parameters.
LIBRARY_MB, COPIES, BYTES, HIDDEN = 1500, 2, 2 * 4, 4096


def memory_mb() -> int:
    """Megabytes for jobs: what SLURM has granted where this is a job of its own, else most of what is there."""
    granted = os.environ.get("SLURM_MEM_PER_NODE", "")
    if granted.isdecimal() and granted != "0":
        return int(granted)
    present = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    present += [int(limit) for path in LIMITS if path.is_file() and (limit := path.read_text().strip()).isdecimal()]
    return int(min(present) * (1 - KEPT) / 1e6)


def granted_cores() -> int | None:
    """The cores of the job of SLURM that this is part of; None where it is part of none."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return int(cores) if cores.isdecimal() else None


def storing_mb(width: int) -> int:
    """Megabytes that a job takes which stores an SAE of so many features in canonical form."""
    return LIBRARY_MB + COPIES * BYTES * HIDDEN * width // 1_000_000
