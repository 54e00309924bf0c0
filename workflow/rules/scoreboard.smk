# The run's cells beside the published ones, and what a reproduction should show.
localrules:
    scoreboard,


rule scoreboard:
    input:
        cells="results/tables/cells.parquet",
        transfers="results/tables/transfers.parquet" if CONFIG.transfers else [],
        published=PUBLISHED,
    output:
        expand("results/tables/{table}.parquet", table=SCOREBOARD_TABLES),
        report(
            expand("results/tables/{table}.csv", table=SCOREBOARD_TABLES),
            category="Tables",
            caption="../report/tables.rst",
        ),
    log:
        "logs/scoreboard.log",
    benchmark:
        "results/benchmarks/scoreboard.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        sources=STUDY.sources(),
        images=STUDY.images(),
        code=script_code("scoreboard"),
    message:
        "scoreboard: laying the cells beside the published ones"
    script:
        "../scripts/scoreboard.py"
