# The demo world: texts, images, models and SAEs that the workflow makes itself. What follows treats them as local sources.
rule demo_texts:
    output:
        tasks=expand("results/demo/{task}.parquet", task=["docstrings", "requests"]),
        prose="results/demo/prose.parquet",
        quiz="results/demo/quiz.parquet",
        tuning="results/demo/tuning.parquet",
    log:
        "logs/demo_texts.log",
    benchmark:
        "results/benchmarks/demo_texts.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        docstrings=config["demo"]["docstrings"],
        meanings=config["demo"]["requests"]["meanings"],
        marked=config["demo"]["requests"]["marked"],
        questions=config["demo"]["questions"],
        seed=config["seed"],
        code=script_code("demo_texts"),
    message:
        "demo: collecting docstrings and generating requests"
    script:
        "../scripts/demo_texts.py"


rule demo_relatives:
    input:
        requests="results/demo/requests.parquet",
    output:
        translations="results/demo/translations.parquet",
        plans="results/demo/plans.parquet",
        diaries="results/demo/diaries.parquet",
    log:
        "logs/demo_relatives.log",
    benchmark:
        "results/benchmarks/demo_relatives.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        others=config["demo"]["requests"]["others"],
        seed=config["seed"],
        code=script_code("demo_relatives"),
    message:
        "demo: translating requests, and writing plans and diaries"
    script:
        "../scripts/demo_relatives.py"


rule demo_digits:
    output:
        digits="results/demo/digits.parquet",
        training="results/demo/digits-training.parquet",
        names="results/demo/digit-names.parquet",
    log:
        "logs/demo_digits.log",
    benchmark:
        "results/benchmarks/demo_digits.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        digits=config["demo"]["digits"],
        seed=config["seed"],
        code=script_code("demo_digits"),
    message:
        "demo: drawing digits, and naming them"
    script:
        "../scripts/demo_digits.py"


rule demo_tokenizer:
    input:
        prose=rules.demo_texts.output.prose,
    output:
        "results/demo/tokenizer/demo.json",
    log:
        "logs/demo_tokenizer.log",
    benchmark:
        "results/benchmarks/demo_tokenizer.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=1500,
    params:
        vocabulary=config["demo"]["vocabulary"],
        code=script_code("demo_tokenizer"),
    message:
        "demo: training a tokenizer"
    script:
        "../scripts/demo_tokenizer.py"


rule demo_model:
    input:
        prose=rules.demo_texts.output.prose,
        tokenizer=rules.demo_tokenizer.output[0],
    output:
        "results/demo/models/{size}/demo.json",
    log:
        "logs/demo_model/{size}.log",
    benchmark:
        "results/benchmarks/demo_model/{size}.tsv"
    wildcard_constraints:
        size="small|large",
    conda:
        "../../envs/models.yaml"
    # One thread whatever the machine has, so that the models are the same models everywhere.
    threads: 1
    resources:
        mem_mb=2000,
    params:
        shape=lambda wildcards: config["demo"]["models"][wildcards.size],
        seed=config["seed"],
        code=script_code("demo_model"),
    message:
        "demo: training the {wildcards.size} language model"
    script:
        "../scripts/demo_model.py"


rule demo_tuned:
    input:
        model="results/demo/models/large/demo.json",
        tuning=rules.demo_texts.output.tuning,
    output:
        "results/demo/models/tuned/demo.json",
    log:
        "logs/demo_tuned.log",
    benchmark:
        "results/benchmarks/demo_tuned.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        steps=config["demo"]["tuned_steps"],
        seed=config["seed"],
        code=script_code("demo_tuned"),
    message:
        "demo: tuning the large language model to answer questions"
    script:
        "../scripts/demo_tuned.py"


rule demo_vision:
    input:
        model="results/demo/models/large/demo.json",
        digits=rules.demo_digits.output.training,
    output:
        "results/demo/models/vision/demo.json",
    log:
        "logs/demo_vision.log",
    benchmark:
        "results/benchmarks/demo_vision.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        steps=config["demo"]["vision_steps"],
        seed=config["seed"],
        code=script_code("demo_vision"),
    message:
        "demo: training a vision tower for the large language model"
    script:
        "../scripts/demo_vision.py"


rule demo_sae:
    input:
        prose=rules.demo_texts.output.prose,
        model=lambda wildcards: f"results/demo/models/{STUDY.demo_size(wildcards.sae)}/demo.json",
    output:
        "results/demo/saes/{sae}/demo.json",
    log:
        "logs/demo_sae/{sae}.log",
    benchmark:
        "results/benchmarks/demo_sae/{sae}.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        layer=lambda wildcards: CONFIG.saes[wildcards.sae].layer,
        width=lambda wildcards: CONFIG.saes[wildcards.sae].width,
        architecture=lambda wildcards: CONFIG.saes[wildcards.sae].source.demo,
        steps=config["demo"]["sae_steps"],
        seed=config["seed"],
        code=script_code("demo_sae"),
    message:
        "demo: training SAE {wildcards.sae}"
    script:
        "../scripts/demo_sae.py"
