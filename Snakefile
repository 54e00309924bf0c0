# Tessera: when are sparse-autoencoder features better classifier inputs than the plain alternatives, and how far do
# they transfer? `snakemake --cores all` runs config/config.yaml; --configfile FILE runs your own instead.
from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


rule all:
    default_target: True
    input:
        "results/report.html",
        FIGURES,
        TABLES,
        EXPLORED,


include: "workflow/rules/demo.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/checks.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/captures.smk"
include: "workflow/rules/probes.smk"
include: "workflow/rules/explorer.smk"
include: "workflow/rules/transfers.smk"
include: "workflow/rules/scoreboard.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/paper.smk"


onstart:
    require_pins()
    begin_run()


onsuccess:
    close_run()


onerror:
    explain_failures()
