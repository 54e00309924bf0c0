# What models answer, and what classifiers trained in one place are worth in another.
localrules:
    transfer_tables,


rule behaviour:
    input:
        table=lambda wildcards: ancient(
            f"results/datasets/{CONFIG.behaviours[wildcards.behaviour].dataset}.parquet"
        ),
        record=lambda wildcards: f"results/datasets/{CONFIG.behaviours[wildcards.behaviour].dataset}.json",
        model=lambda wildcards: f"results/models/{CONFIG.behaviours[wildcards.behaviour].model}/revision.json",
    output:
        table="results/behaviours/{behaviour}.parquet",
        record="results/behaviours/{behaviour}.json",
    log:
        "logs/behaviour/{behaviour}.log",
    benchmark:
        "results/benchmarks/behaviour/{behaviour}.tsv"
    priority: 1
    conda:
        "../../envs/models.yaml"
    threads: CONFIG.capture.threads
    resources:
        mem_mb=4000,
        gpu=1,
    params:
        entry=lambda wildcards: STUDY.entry("behaviours", wildcards.behaviour),
        reading=lambda wildcards: {
            key: config["models"][CONFIG.behaviours[wildcards.behaviour].model][key]
            for key in ("attention", "chat", "dtype", "max_length")
        },
        code=script_code("behaviour"),
    message:
        "behaviour: asking for {wildcards.behaviour}"
    script:
        "../scripts/behaviour.py"


# One job a matrix. It keeps the answers of each classifier input, so one more input computes that alone.
rule transfer:
    input:
        records=lambda wildcards: STUDY.transfer_files(wildcards.transfer),
        tables=lambda wildcards: ancient(STUDY.transfer_tables(wildcards.transfer)),
    output:
        "results/transfer/{transfer}/cells.parquet",
    log:
        "logs/transfer/{transfer}.log",
    benchmark:
        "results/benchmarks/transfer/{transfer}.tsv"
    priority: 2
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        settings=lambda wildcards: STUDY.transfer_settings(wildcards.transfer),
        code=script_code("transfer"),
    message:
        "transfer: {wildcards.transfer}"
    script:
        "../scripts/transfer.py"


rule transfer_tables:
    input:
        cells=expand(rules.transfer.output, transfer=CONFIG.transfers),
    output:
        expand("results/tables/{table}.parquet", table=TRANSFER_TABLES),
        report(
            expand("results/tables/{table}.csv", table=TRANSFER_TABLES),
            category="Tables",
            caption="../report/tables.rst",
        ),
    log:
        "logs/transfer_tables.log",
    benchmark:
        "results/benchmarks/transfer_tables.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        code=script_code("transfer_tables"),
    message:
        "tables: putting all transfers together"
    script:
        "../scripts/transfer_tables.py"


rule transfers:
    input:
        expand("results/tables/{table}.parquet", table=TRANSFER_TABLES),
