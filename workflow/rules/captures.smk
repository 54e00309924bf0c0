# One pass of one model over one dataset, for all the heads that the plan gives it. What much waits for goes first: passes
# before probes, and transfers, the longest jobs of all, before either.
rule capture:
    input:
        table=ancient("results/datasets/{dataset}.parquet"),
        record="results/datasets/{dataset}.json",
        model="results/models/{model}/revision.json",
        saes=lambda wildcards: [
            f"results/saes/{sae}/revision.json"
            for sae in sorted(
                {sae for head in heads_of(wildcards) for sae in head.saes}
            )
        ],
    output:
        "results/activations/{model}/{dataset}/{capture}/manifest.json",
    log:
        "logs/capture/{model}/{dataset}/{capture}.log",
    benchmark:
        "results/benchmarks/capture/{model}/{dataset}/{capture}.tsv"
    priority: 1
    conda:
        "../../envs/models.yaml"
    threads: CONFIG.capture.threads
    resources:
        mem_mb=4000,
        gpu=1,
    # Batch and shard sizes and the device are read from the config in the script: they change no number.
    params:
        heads=lambda wildcards: [asdict(head) for head in heads_of(wildcards)],
        reading=lambda wildcards: {
            key: config["models"][wildcards.model][key]
            for key in ("attention", "chat", "dtype", "encode", "max_length")
        },
        code=script_code("capture"),
    message:
        "capture: {wildcards.model} reads {wildcards.dataset}"
    script:
        "../scripts/capture.py"


rule captures:
    input:
        STUDY.wanted_manifests(),
