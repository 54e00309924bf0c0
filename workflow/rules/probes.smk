# Classifiers on what was captured, and on the plain text.
# One job serves all poolings of a head: it reads the head's shards once, and a workflow of thousands of small jobs would be
# slow to plan. The manifest carries the hash of the dataset table. Cells and predictions lie beside the record.
rule probe:
    input:
        manifest=manifest_of,
    output:
        "results/probes/{model}/{dataset}/{head}/probes.json",
    log:
        "logs/probe/{model}/{dataset}/{head}.log",
    benchmark:
        "results/benchmarks/probe/{model}/{dataset}/{head}.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        # One function for both, because Snakemake takes a millisecond for each and there are many probes.
        head=lambda wildcards: {
            **STUDY.probe_params(wildcards.model, wildcards.head),
            **STUDY.alone(wildcards.dataset),
        },
        search=STUDY.search(),
        protocols=config["probes"]["protocols"],
        strict=config["probes"]["strict"],
        code=script_code("probe"),
    message:
        "probe: {wildcards.dataset} from {wildcards.model}, {wildcards.head}"
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
        alone=lambda wildcards: STUDY.alone(wildcards.dataset),
        search=STUDY.search(),
        protocols=config["probes"]["protocols"],
        strict=config["probes"]["strict"],
        code=script_code("probe_text"),
    message:
        "probe: {wildcards.dataset} from {wildcards.head}"
    script:
        "../scripts/probe_text.py"


rule probes:
    input:
        STUDY.text_probes(),
        STUDY.head_probes(),
