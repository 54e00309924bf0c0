# The config, checked; and the few words of Snakemake that all rules share.
import atexit
import os
import shlex
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

ROOT = Path(workflow.main_snakefile).resolve().parent
ROOT = ROOT.parent if ROOT.name == "workflow" else ROOT

# Jobs run scripts in processes of their own, which find the library the same way, whatever environment they run in.
sys.path.insert(0, str(ROOT / "src"))
found = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
os.environ.update(
    PYTHONPATH=os.pathsep.join(dict.fromkeys([str(ROOT / "src"), *found]))
)

from tessera import (
    cards,
    closing,
    figure_names,
    fingerprint,
    folder,
    machine,
    offline,
    slurm,
)
from tessera.config_file import check_files
from tessera.config_file import parse as checked
from tessera.errors import UserError
from tessera.study import Study

offline.keep_jobs_offline()

if not workflow.config_settings.configfiles:

    configfile: ROOT / "config/config.yaml"


BEGAN = time.time()
MEMORY = fingerprint.Memory(Path("results/.digests.json"))

try:
    if workflow.is_main_process:
        folder.require_writable()
    check_files([Path(path) for path in workflow.config_settings.configfiles])
    STUDY = Study(checked(config), MEMORY)
    STUDY.require_sources()
    TRANSFER_FIGURES = list(figure_names.transfer_figures(STUDY.titles()["transfers"]))
except UserError as error:
    raise WorkflowError(str(error)) from None
validate(config, str(ROOT / "config/schema.json"), set_default=False)
CONFIG = STUDY.config

# From here on `config` holds every key, defaults included, so that scripts need not know the defaults.
config.clear()
config.update(STUDY.plain)

# A local capture holds cores while it waits for a card, so no more start than there are cards. --resources gpu=N wins.
if workflow.nodes is None and (gpus := cards.count(CONFIG.capture.device)):
    workflow.global_resources.setdefault("gpu", gpus)

# Nor do more jobs run here than memory allows, by what they say they need. --resources mem_mb=N wins.
if workflow.nodes is None:
    workflow.global_resources.setdefault("mem_mb", machine.memory_mb())

# A group of jobs within one of SLURM has the cores that SLURM gave it, which not every cluster makes it keep to.
if workflow.nodes is None and (granted := machine.granted_cores()):
    workflow.global_resources["_cores"] = min(granted, workflow.cores)

FIGURE_NAMES = [
    "arms",
    "layers",
    "poolings",
    *(["curves"] if CONFIG.probes.sparse_k else []),
    *(["saes"] if CONFIG.saes else []),
]
FIGURES = expand(
    "results/figures/{figure}.{format}",
    figure=FIGURE_NAMES + TRANSFER_FIGURES,
    format=["svg", "pdf", "png", "csv"],
)
TABLE_NAMES = [
    "cells",
    "arms",
    "differences",
    "curves",
    "comparisons",
    "ranks",
    "noise",
    "classes",
    "saes",
]
TRANSFER_TABLES = ["transfers", "dictionaries", "matches"] if CONFIG.transfers else []
SCOREBOARD_TABLES = ["scoreboard", "claims"]
PUBLISHED = expand(
    str(ROOT / "resources/reference/{name}.csv"),
    name=["results_tidy", "best_per_dataset", "datasets", "vision_tower"],
)
# The figures on the axes of the study's own, which the target `paper` has beside the others.
PAPER_FIGURES = figure_names.paper_figures(STUDY.probed_widths(), STUDY.pictures())
TABLES = expand(
    "results/tables/{table}.{format}",
    table=TABLE_NAMES + TRANSFER_TABLES + SCOREBOARD_TABLES,
    format=["parquet", "csv"],
)

EXPLORED = STUDY.explored_files()
EXPLORER_PAGES = STUDY.explorer_pages()


def one_of(ids):
    """A wildcard that stands for one of these ids and nothing else."""
    return "|".join(ids) or "(?!)"


wildcard_constraints:
    dataset=one_of(CONFIG.datasets),
    model=one_of(CONFIG.models),
    sae=one_of(CONFIG.saes),
    capture="[0-9a-f]{10}",
    head="[a-z0-9-]+",
    figure=one_of(FIGURE_NAMES + TRANSFER_FIGURES),
    behaviour=one_of(CONFIG.behaviours),
    transfer=one_of(CONFIG.transfers),


def script_code(name):
    """Digest of the code that a script runs: what a rule carries in its params instead of file times."""
    return fingerprint.code(ROOT / "workflow/scripts" / f"{name}.py", MEMORY)


def page_looks():
    """Digest of what the report is made of besides code."""
    parts = [
        ROOT / "CITATION.cff",
        *(ROOT / "workflow/report").glob("*.rst"),
        *(
            path
            for path in (ROOT / "src/tessera/report").iterdir()
            if path.suffix in (".j2", ".css", ".js")
        ),
    ]
    return fingerprint.sha256_text(
        "".join(path.read_text(encoding="utf-8") for path in sorted(parts))
    )


def source_input(section, name):
    """What bringing in a source waits for, either what the demo world makes or the file on disk.

    The file is ancient because its content is in the params: touching it reruns nothing, changing it does.
    """
    path = STUDY.local_source(section, name)
    return ancient(path) if path else STUDY.made_source(section, name) or []


def heads_of(wildcards):
    """The heads of one capture."""
    return STUDY.captures[wildcards.model, wildcards.dataset][wildcards.capture]


def manifest_of(wildcards):
    """The manifest of the capture that holds one head."""
    return STUDY.manifests[
        wildcards.model, wildcards.dataset, STUDY.head(wildcards.model, wildcards.head)
    ]


def explorer_heads_of(wildcards):
    """The SAE heads whose probes may be the best of a task, each with the manifests of the datasets that it has read."""
    return STUDY.explorer_heads(wildcards.model, wildcards.dataset)


def tables_of(figure):
    """The tables that a figure is drawn from."""
    names = TRANSFER_TABLES if figure in TRANSFER_FIGURES else TABLE_NAMES
    return expand("results/tables/{table}.parquet", table=names)


def titles_of(figure):
    """What a figure calls things; one that shows no transfer does not depend on theirs."""
    titles = STUDY.titles()
    if figure in TRANSFER_FIGURES:
        return titles
    probed = {
        name: title
        for name, title in titles["datasets"].items()
        if name in STUDY.probed
    }
    return {"datasets": probed, "models": titles["models"]}


def caption_of(figure):
    """The words under a figure."""
    name = figure_names.caption_name(figure, STUDY.titles()["transfers"])
    return (ROOT / f"workflow/report/{name}.rst").read_text(encoding="utf-8")


def require_pins():
    """Before the first job: whatever it brings in from the Hub is pinned. A dry run does not ask, nor does the plan."""
    sections = {"dataset": "datasets", "model": "models"}
    jobs = [job for job in workflow.dag.needrun_jobs() if job.rule.name in sections]
    wanted = {(sections[job.rule.name], job.wildcards[0]) for job in jobs}
    try:
        STUDY.require_pins(
            wanted, [str(path) for path in workflow.config_settings.configfiles]
        )
    except UserError as error:
        raise WorkflowError(str(error)) from None


def begin_run():
    """Before the first job, and not before a dry run: no job runs twice, and whoever comes later learns of this run."""
    try:
        if workflow.nodes is not None:
            slurm.require_none_left(Path.cwd())
            if executor := sys.modules.get("snakemake_executor_plugin_slurm"):
                slurm.keep_memory(executor)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    lift_rate_limit()
    folder.enter()
    # Jobs on other machines read it rather than work it out again.
    MEMORY.save()


def lift_rate_limit():
    """No limit on how many jobs start in a second, unless one was asked for.

    With a limit, Snakemake looks at all jobs that are ready when a job ends, and a second after each look for ever: after a
    few hundred jobs it does nothing else, on a core that the jobs would need.
    """
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def slurm_logs_of(job):
    """The folder of what SLURM and a job have printed, as the executor names it."""
    if job.group:
        return f"group_{job.group}_{job.rule.name}"
    return f"rule_{job.rule.name}/{'_'.join(job.wildcards)}"


def explain_failures():
    """At the end of a run in which jobs failed: why SLURM ended those that it ended."""
    if workflow.nodes is None:
        return
    failed = [
        (slurm_logs_of(job), job.rule.name) for job in workflow.dag.needrun_jobs()
    ]
    for error in slurm.ended(failed, BEGAN):
        print(error, file=sys.stderr)


def cancel_left():
    """At the end of a run through SLURM: what Snakemake has missed when it cancelled the jobs of an interrupted one."""
    if workflow.remote_execution_settings.immediate_submit:
        return
    try:
        if left := slurm.cancel_left(Path.cwd()):
            print(
                f"Cancelled what was left of this run: {' '.join(left)}",
                file=sys.stderr,
            )
    except UserError as error:
        print(error, file=sys.stderr)


def end_process():
    """At the end of Snakemake, however it comes: no job is left, and whose run it was that kept this one out, if one did."""
    if workflow.nodes is not None and folder.is_alone():
        cancel_left()
    folder.leave()
    MEMORY.save()
    # A report is written while the run that it is of holds the lock.
    locks = workflow.execution_settings and workflow.execution_settings.lock
    waits = locks and not workflow.dryrun and workflow.persistence
    if waits and workflow.persistence.locked:
        print(f"\n{folder.locked()}", file=sys.stderr)


if workflow.is_main_process:
    atexit.register(end_process)


def close_run():
    """At the end of a run that reached the report: Snakemake's own report beside it, and what it says first."""
    page, provenance = Path("results/report.html"), Path(
        "results/snakemake-report.html"
    )
    if not page.is_file():
        return
    # It has the time of its page, and not merely a later one, because a clock may be set back between two runs.
    at, trouble = page.stat().st_mtime_ns, None
    if not provenance.is_file() or provenance.stat().st_mtime_ns != at:
        trouble = write_provenance(provenance, at)
    findings = closing.summary_lines(Path("results/findings.json"))
    print(
        "\n".join(
            ["", f"The report is {page.resolve()}. What it finds:", "", *findings, ""]
        ),
        file=sys.stderr,
    )
    if trouble:
        raise WorkflowError(str(trouble))


def write_provenance(path, at):
    """Have Snakemake write its report of all that has run, with this time; returns what keeps it from that, if anything does."""
    files = [str(path) for path in workflow.config_settings.configfiles]
    partial = path.with_name(f".{path.name}")
    command = [sys.executable, "-m", "snakemake", "all", "--report", str(partial)]
    command += ["--snakefile", str(workflow.main_snakefile), "--nolock"]
    command += ["--configfile", *files] if files else []
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode == 0:
        os.utime(partial, ns=(at, at))
        partial.replace(path)
        return None
    partial.unlink(missing_ok=True)
    said = [line for line in done.stdout.splitlines() if "Error" in line]
    reason = said[-1].strip() if said else "it does not say why"
    command[command.index(str(partial))] = str(path)
    return UserError(
        str(path),
        f"all else is done, and Snakemake could not write its report ({reason})",
        f"see to that, then run {shlex.join(command)}",
    )
