# Every source becomes one table of labelled examples, and a record of what became of it.
rule dataset:
    input:
        given=lambda wildcards: source_input("datasets", wildcards.dataset),
    output:
        table="results/datasets/{dataset}.parquet",
        record="results/datasets/{dataset}.json",
    log:
        "logs/dataset/{dataset}.log",
    benchmark:
        "results/benchmarks/dataset/{dataset}.tsv"
    localrule: STUDY.fetches("datasets")
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        entry=lambda wildcards: STUDY.entry("datasets", wildcards.dataset),
        digest=lambda wildcards: STUDY.source_digest("datasets", wildcards.dataset),
        seed=config["seed"],
        code=script_code("dataset"),
    message:
        "dataset {wildcards.dataset}: bringing it into one table"
    script:
        "../scripts/dataset.py"


rule datasets:
    input:
        expand(rules.dataset.output, dataset=CONFIG.datasets),
