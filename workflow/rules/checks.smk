# What a dataset gives away before any model has read it.
rule check:
    input:
        table=ancient("results/datasets/{dataset}.parquet"),
        record="results/datasets/{dataset}.json",
    output:
        "results/checks/{dataset}.json",
    log:
        "logs/check/{dataset}.log",
    benchmark:
        "results/benchmarks/check/{dataset}.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        protocols=config["probes"]["protocols"],
        strict=config["probes"]["strict"],
        code=script_code("leakage"),
    message:
        "check: looking for leaks and shortcuts in {wildcards.dataset}"
    script:
        "../scripts/leakage.py"


rule checks:
    input:
        expand(rules.check.output, dataset=STUDY.probed),
