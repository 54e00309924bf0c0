# The whole study, and what it will cost before anything is spent.
localrules:
    plan,


# One job draws all of them: they share what is read and worked out, and a hundred small jobs would be slow to plan.
rule paper_figures:
    input:
        tables=expand(
            "results/tables/{table}.parquet",
            table=["cells", "scoreboard", *TRANSFER_TABLES],
        ),
        published=PUBLISHED,
    output:
        report(
            expand("results/figures/{figure}.svg", figure=PAPER_FIGURES),
            category="The study's figures",
            caption="../report/paper.rst",
        ),
        expand(
            "results/figures/{figure}.{format}",
            figure=PAPER_FIGURES,
            format=["pdf", "png", "csv"],
        ),
    log:
        "logs/paper_figures.log",
    benchmark:
        "results/benchmarks/paper_figures.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        figures=[asdict(figure) for figure in PAPER_FIGURES.values()],
        titles=STUDY.titles(),
        sources=STUDY.sources(),
        images=STUDY.images(),
        image_transfers=STUDY.image_transfers(),
        code=script_code("paper_figures"),
    message:
        "paper: drawing the study's figures from this run"
    script:
        "../scripts/paper_figures.py"


rule paper_page:
    input:
        tables=expand("results/tables/{table}.parquet", table=SCOREBOARD_TABLES),
        figures=[*FIGURES, *rules.paper_figures.output],
        index=ROOT / "resources/reference/figures_index.csv",
        facts=ROOT / "resources/reference/protocol_facts.csv",
        captions=ancient(sorted((ROOT / "workflow/report").glob("*.rst"))),
    output:
        "results/paper.html",
    log:
        "logs/paper_page.log",
    benchmark:
        "results/benchmarks/paper_page.tsv"
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        plain=FIGURE_NAMES,
        figures=[asdict(figure) for figure in PAPER_FIGURES.values()],
        titles=STUDY.titles(),
        sources=STUDY.sources(),
        protocols=config["probes"]["protocols"],
        looks=page_looks(),
        code=script_code("paper_page"),
    message:
        "paper: writing results/paper.html"
    script:
        "../scripts/paper_page.py"


rule paper:
    input:
        "results/report.html",
        "results/paper.html",
        FIGURES,
        TABLES,
        EXPLORED,
        rules.paper_figures.output,


# What lies in results/ changes the answer and is no input of it, so every time it is asked for it is made again.
rule plan:
    input:
        sizes=ancient(ROOT / "resources/reference/sizes.csv"),
        rates=ancient(ROOT / "resources/reference/rates.csv"),
        cards=ancient(ROOT / "resources/reference/cards.csv"),
    output:
        page="results/plan.txt",
        record="results/plan.json",
    log:
        "logs/plan.log",
    conda:
        "../../envs/probes.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        figures=FIGURE_NAMES + TRANSFER_FIGURES,
        asked=time.time_ns(),
    message:
        "plan: counting what this config will cost"
    script:
        "../scripts/plan.py"
