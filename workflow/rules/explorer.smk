# What the best SAE probe of a dataset and model looks at. Which probe that is shows when the cells are there, so the job waits
# for all that may be it, and for all captures in which its features may have been active.
rule explore:
    input:
        unpack(
            lambda wildcards: STUDY.explorer_probes(wildcards.model, wildcards.dataset)
        ),
        table=ancient("results/datasets/{dataset}.parquet"),
        record="results/datasets/{dataset}.json",
        model="results/models/{model}/revision.json",
        manifests=lambda wildcards: sorted(
            {
                manifest
                for head in explorer_heads_of(wildcards).values()
                for manifest in head["manifests"].values()
            }
        ),
        saes=lambda wildcards: [
            f"results/saes/{head['sae']}/revision.json"
            for head in explorer_heads_of(wildcards).values()
        ],
    output:
        "results/explorer/{model}/{dataset}.json",
    log:
        "logs/explore/{model}/{dataset}.log",
    benchmark:
        "results/benchmarks/explore/{model}/{dataset}.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    # The record of a head's probes is the same file whatever was searched, so that stands here.
    params:
        heads=explorer_heads_of,
        settings=config["explorer"],
        search=STUDY.search(),
        strict=config["probes"]["strict"],
        code=script_code("explore"),
    message:
        "explore: what {wildcards.model}'s SAE features say of {wildcards.dataset}"
    script:
        "../scripts/explore.py"


rule explorer:
    input:
        EXPLORED,
