"""Fit and score classifiers on every pooling of one head."""

from functools import cache
from pathlib import Path

from tessera import examples, pooling, probes, protocols, shards
from tessera.attention import States
from tessera.files import read_json, sha256_file
from tessera.job import job
from tessera.plan import ATTENTION

with job(snakemake):
    manifest = Path(snakemake.input.manifest)
    wildcards, settings = snakemake.wildcards, dict(snakemake.params.head)
    poolings, thresholds = settings.pop("poolings"), settings.pop("thresholds")
    search = {**snakemake.params.search, "thresholds": thresholds, "alone": settings.pop("alone")}
    chosen = {"search": search, "protocols": snakemake.params.protocols, "strict_settings": snakemake.params.strict}
    table = examples.read(f"results/datasets/{wildcards.dataset}.parquet", read_json(manifest)["identity"]["dataset"])
    tokens = cache(lambda: shards.read_sae(manifest.parent, wildcards.head))

    def probe(name):
        if settings["arm"] in ("sae", "random"):
            X = pooling.pool(tokens(), name)
        elif name == ATTENTION:
            X = States(*shards.read_states(manifest.parent, wildcards.head))
        else:
            X = shards.read_hidden(manifest.parent, wildcards.head, name)
        named = {**{key: wildcards[key] for key in ("model", "dataset", "head")}, "pooling": name}
        picked = probes.Picked()
        found = protocols.run(X, table, identity={**named, **settings}, keep=picked.keep, **chosen)
        return probes.Made(*found, picked.content(probes.about_head(manifest, **named), table, X))

    depends_on = {"manifest": sha256_file(manifest), "code": snakemake.params.code}
    probes.run_poolings(Path(snakemake.output[0]).parent, poolings, probe, {**depends_on, **settings, **chosen})
