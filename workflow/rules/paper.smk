# The whole study, and what it will cost before anything is spent.
localrules:
    plan,


rule paper:
    input:
        "results/report.html",
        FIGURES,
        TABLES,
        EXPLORED,


# What lies in results/ changes the answer and is no input of it, so every time it is asked for it is made again.
rule plan:
    input:
        sizes=ancient(ROOT / "resources/reference/sizes.csv"),
        rates=ancient(ROOT / "resources/reference/rates.csv"),
        cards=ancient(ROOT / "resources/reference/cards.csv"),
    output:
        page="results/plan.txt",
        record="results/plan.json",
    log:
        "logs/plan.log",
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        figures=FIGURE_NAMES + TRANSFER_FIGURES,
        asked=time.time_ns(),
    message:
        "plan: counting what this config will cost"
    script:
        "../scripts/plan.py"
