"""Say what a config will cost."""

import sys
from pathlib import Path

from tessera.config_file import parse
from tessera.costs import Costs, Facts, words
from tessera.files import replacing, write_json
from tessera.job import job
from tessera.study import Study

with job(snakemake):
    facts = Facts(Path(snakemake.input.sizes).parent)
    plan = Costs(Study(parse(snakemake.config)), facts).everything(snakemake.params.figures)
    write_json(snakemake.output.record, plan)
    with replacing(snakemake.output.page) as partial:
        partial.write_text(words(plan), encoding="utf-8")
    sys.stdout.write("\n" + words(plan))
