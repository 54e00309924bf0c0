# Classifiers on what was captured, and on the plain text.
# The manifest holds the hash of the dataset that was read, so a probe depends on the table through it. There may be
# thousands of these jobs; the rule says no more than it must, because planning pays for every line of it.
rule probe:
    input:
        table=ancient("results/datasets/{dataset}.parquet"),
        manifest=manifest_of,
    output:
        cells="results/probes/{model}/{dataset}/{head}/{pooling}.parquet",
        predictions="results/probes/{model}/{dataset}/{head}/{pooling}.predictions.parquet",
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
        cells="results/probes/text/{dataset}/{head}.parquet",
        predictions="results/probes/text/{dataset}/{head}.predictions.parquet",
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
