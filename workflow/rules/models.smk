# Models and SAEs, from wherever they are, into one canonical form with a record of their revision.
rule model:
    input:
        given=lambda wildcards: source_input("models", wildcards.model),
    output:
        "results/models/{model}/revision.json",
    log:
        "logs/model/{model}.log",
    benchmark:
        "results/benchmarks/model/{model}.tsv"
    localrule: STUDY.fetches("models")
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        source=lambda wildcards: STUDY.entry("models", wildcards.model)["source"],
        digest=lambda wildcards: STUDY.source_digest("models", wildcards.model),
        code=script_code("model"),
    message:
        "model {wildcards.model}: storing a snapshot"
    script:
        "../scripts/model.py"


rule sae:
    input:
        given=lambda wildcards: source_input("saes", wildcards.sae),
        model=lambda wildcards: f"results/models/{CONFIG.saes[wildcards.sae].model}/revision.json",
    output:
        "results/saes/{sae}/revision.json",
    log:
        "logs/sae/{sae}.log",
    benchmark:
        "results/benchmarks/sae/{sae}.tsv"
    localrule: STUDY.fetches("saes")
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: machine.storing_mb(CONFIG.saes[wildcards.sae].width),
    params:
        entry=lambda wildcards: STUDY.entry("saes", wildcards.sae),
        digest=lambda wildcards: STUDY.source_digest("saes", wildcards.sae),
        seed=lambda wildcards: STUDY.control_seed(wildcards.sae),
        code=script_code("sae"),
    message:
        "SAE {wildcards.sae}: storing it in canonical form"
    script:
        "../scripts/sae.py"
