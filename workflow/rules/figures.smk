# What people look at: tables, figures, findings and the report.
localrules:
    tables,
    figure,
    findings,
    report,


rule tables:
    input:
        text_probes=STUDY.text_probes(),
        head_probes=STUDY.head_probes(),
        tables=ancient(
            expand("results/datasets/{dataset}.parquet", dataset=STUDY.probed)
        ),
        records=expand("results/datasets/{dataset}.json", dataset=STUDY.probed),
        saes=expand("results/saes/{sae}/revision.json", sae=STUDY.probed_saes()),
        manifests=STUDY.probed_manifests(),
    output:
        expand("results/tables/{table}.parquet", table=TABLE_NAMES),
        report(
            expand("results/tables/{table}.csv", table=TABLE_NAMES),
            category="Tables",
            caption="../report/tables.rst",
        ),
    log:
        "logs/tables.log",
    benchmark:
        "results/benchmarks/tables.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        saes=STUDY.probed_saes(),
        code=script_code("tables"),
    message:
        "tables: collecting every cell and choosing each arm's configuration"
    script:
        "../scripts/tables.py"


rule figure:
    input:
        lambda wildcards: tables_of(wildcards.figure),
    output:
        report(
            "results/figures/{figure}.svg",
            category="Figures",
            labels={"figure": "{figure}"},
            caption="../report/figure.rst",
        ),
        multiext("results/figures/{figure}", ".pdf", ".png", ".csv"),
    log:
        "logs/figure/{figure}.log",
    benchmark:
        "results/benchmarks/figure/{figure}.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        titles=lambda wildcards: titles_of(wildcards.figure),
        caption=lambda wildcards: caption_of(wildcards.figure),
        code=script_code("figure"),
    message:
        "figure: {wildcards.figure}"
    script:
        "../scripts/figure.py"


rule figures:
    input:
        FIGURES,


rule findings:
    input:
        expand("results/tables/{table}.parquet", table=TABLE_NAMES + TRANSFER_TABLES),
    output:
        "results/findings.json",
    log:
        "logs/findings.log",
    benchmark:
        "results/benchmarks/findings.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        titles=STUDY.titles(),
        code=script_code("findings"),
    message:
        "findings: what the tables say"
    script:
        "../scripts/findings.py"


rule report:
    input:
        findings="results/findings.json",
        tables=expand(
            "results/tables/{table}.parquet",
            table=TABLE_NAMES + TRANSFER_TABLES + SCOREBOARD_TABLES,
        ),
        figures=FIGURES,
        datasets=expand("results/datasets/{dataset}.json", dataset=CONFIG.datasets),
        models=expand("results/models/{model}/revision.json", model=CONFIG.models),
        saes=expand("results/saes/{sae}/revision.json", sae=CONFIG.saes),
        checks=expand(rules.check.output, dataset=STUDY.probed),
        behaviours=expand(
            "results/behaviours/{behaviour}.json", behaviour=CONFIG.behaviours
        ),
        manifests=STUDY.wanted_manifests(),
        features=EXPLORED,
        captions=ancient(sorted((ROOT / "workflow/report").glob("*.rst"))),
        citation=ancient(ROOT / "CITATION.cff"),
    output:
        page="results/report.html",
        apart=list(EXPLORER_PAGES.values()),
    log:
        "logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        probes=config["probes"],
        titles=STUDY.titles(),
        apart=EXPLORER_PAGES,
        sae_models={name: sae.model for name, sae in CONFIG.saes.items()},
        looks=page_looks(),
        code=script_code("report"),
    message:
        "report: writing results/report.html"
    script:
        "../scripts/report.py"
