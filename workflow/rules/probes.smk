# Classifiers on what was captured, and on the plain text.
# There may be thousands of these jobs, and planning pays for every file that is named, so the rule names no more than it
# must: the manifest carries the hash of the dataset table, and the predictions are written beside the cells, before them.
rule probe:
    input:
        manifest=manifest_of,
    output:
        "results/probes/{model}/{dataset}/{head}/{pooling}.parquet",
    log:
        "logs/probe/{model}/{dataset}/{head}/{pooling}.log",
    benchmark:
        "results/benchmarks/probe/{model}/{dataset}/{head}/{pooling}.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        head=lambda wildcards: STUDY.probe_params(wildcards.model, wildcards.head),
        protocols=config["probes"]["protocols"],
        strict=config["probes"]["strict"],
        code=script_code("probe"),
    script:
        "../scripts/probe.py"


rule probe_text:
    input:
        table=ancient("results/datasets/{dataset}.parquet"),
        record="results/datasets/{dataset}.json",
    output:
        "results/probes/text/{dataset}/{head}.parquet",
    log:
        "logs/probe_text/{dataset}/{head}.log",
    benchmark:
        "results/benchmarks/probe_text/{dataset}/{head}.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        protocols=config["probes"]["protocols"],
        strict=config["probes"]["strict"],
        code=script_code("probe_text"),
    message:
        "probe: {wildcards.dataset} from {wildcards.head}"
    script:
        "../scripts/probe_text.py"


rule probes:
    input:
        [f"{stem}.parquet" for stem in STUDY.probes],
