"""What a config amounts to on disk: which captures serve which heads, which probes there are, and where all of it lies.

The workflow's rules ask a `Study` and do no arithmetic of their own, so what a config means can be tested, and used from
a notebook, without the workflow.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tessera import fingerprint
from tessera.config import Config, ControlSae, DemoModel
from tessera.errors import UserError
from tessera.plan import ATTENTION, Head, hidden_head, plan, token_head

RESULTS = Path("results")


class Study:
    """A config and the results folder it is about, as they are when it is made."""

    def __init__(self, config: Config, memory: fingerprint.Memory | None = None):
        self.config = config
        self.memory = memory or fingerprint.Memory()
        self.plain = config.model_dump(mode="json")

    def entry(self, section: str, name: str) -> dict[str, Any]:
        """A config entry as a plain dict, less what only figures show."""
        return {key: value for key, value in sorted(self.plain[section][name].items()) if key != "title"}

    def titles(self) -> dict[str, dict[str, str]]:
        """What figures call each dataset and model, in the config's order."""
        return {
            section: {name: entry["title"] or name for name, entry in self.plain[section].items()}
            for section in ("datasets", "models")
        }

    # --- sources ---

    def local_source(self, section: str, name: str) -> str | None:
        """The path of a source on this disk, or None for one that is fetched or made."""
        source = self.plain[section][name]["source"]
        return next((source[key] for key in ("file", "saved", "images", "folder") if key in source), None)

    def require_sources(self) -> None:
        """A `UserError` about the first local source that is not there, before anything is planned around it."""
        for section in ("datasets", "models", "saes"):
            for name in self.plain[section]:
                path = self.local_source(section, name)
                if path and not Path(path).exists():
                    mend = f"correct the path; it is relative to {Path.cwd()}"
                    raise UserError(f"{section}.{name}.source", f"there is no '{path}'", mend)

    def made_source(self, section: str, name: str) -> str | None:
        """The record of what the workflow makes and this source is taken from, or None for one it does not make."""
        source = self.plain[section][name]["source"]
        if "control" in source:
            return f"results/saes/{source['control']}/revision.json"
        if "demo" not in source:
            return None
        return {
            "datasets": f"results/demo/{source['demo']}.parquet",
            "models": f"results/demo/models/{source['demo']}/demo.json",
            "saes": f"results/demo/saes/{name}/demo.json",
        }[section]

    def source_digest(self, section: str, name: str) -> str | None:
        """The content of a local source, as a digest."""
        path = self.local_source(section, name)
        return path and fingerprint.source(Path(path), self.memory)

    def control_seed(self, sae: str) -> int | None:
        """The seed of a control; what is brought in depends on none."""
        return self.config.seed if "control" in self.plain["saes"][sae]["source"] else None

    def demo_size(self, sae: str) -> str:
        """Which of the demo's models an SAE of the demo is trained on."""
        source = self.config.models[self.config.saes[sae].model].source
        assert isinstance(source, DemoModel)  # noqa: S101 - the config allows demo SAEs on demo models alone
        return source.demo

    # --- captures ---

    def datasets_of(self, model: str) -> Sequence[str]:
        chosen = self.config.models[model].datasets
        return list(self.config.datasets) if chosen is None else chosen

    def heads(self, model: str) -> list[Head]:
        """The heads of a model that the config asks for."""
        return list(self._heads[model].values())

    def head(self, model: str, name: str) -> Head:
        return self._heads[model][name]

    @cached_property
    def _heads(self) -> dict[str, dict[str, Head]]:
        heads = {
            name: [*map(hidden_head, model.layers), *map(token_head, model.token_layers)]
            for name, model in self.config.models.items()
        }
        for name, sae in self.config.saes.items():
            matched = sae.source.control if isinstance(sae.source, ControlSae) else None
            heads[sae.model].append(Head(name, sae.layer, name, sae.site, matched=matched))
        return {model: {head.id: head for head in of_model} for model, of_model in heads.items()}

    @cached_property
    def captures(self) -> dict[tuple[str, str], dict[str, tuple[Head, ...]]]:
        """(model, dataset) -> capture id -> the heads it holds."""
        return {
            (model, dataset): plan(RESULTS / "activations" / model / dataset, self.heads(model), self._sae_available)
            for model in self.config.models
            for dataset in self.datasets_of(model)
            if self.heads(model)
        }

    def _sae_available(self, sae: str) -> bool:
        return sae in self.config.saes or (RESULTS / "saes" / sae / "revision.json").is_file()

    @cached_property
    def manifests(self) -> dict[tuple[str, str, Head], str]:
        """(model, dataset, head) -> the manifest of the capture that holds the head."""
        return {
            (model, dataset, head): f"results/activations/{model}/{dataset}/{capture}/manifest.json"
            for (model, dataset), captures in self.captures.items()
            for capture, heads in captures.items()
            for head in heads
        }

    def wanted_manifests(self) -> list[str]:
        """The manifests of the captures that serve this config."""
        return sorted(set(self.manifests.values()))

    # --- probes ---

    def probe_params(self, model: str, name: str) -> dict[str, Any]:
        """What probes on a head are called in the tables, and the poolings and thresholds that suit its features."""
        head, probes = self.head(model, name), self.config.probes
        if head.sae is None:
            poolings = [ATTENTION] if head.every_token else probes.hidden_poolings
            of_kind: dict[str, Any] = {"arm": "hidden", "width": None, "poolings": poolings, "thresholds": [None]}
        else:
            of_kind = {"arm": "random" if head.matched else "sae", "width": self.config.saes[name].width}
            of_kind |= {"poolings": probes.sae_poolings, "thresholds": probes.thresholds}
        # What enters a layer is what the layer before gives, and is compared with it.
        return {**of_kind, "layer": head.layer - 1 if head.site == "resid_pre" else head.layer}

    def search(self) -> dict[str, Any]:
        """What every probe tries, beside the poolings and thresholds of its input."""
        probes = self.plain["probes"]
        return {key: probes[key] for key in ("classifiers", "l1_penalties", "sparse_k", "regimes", "curve_poolings")}

    def text_probes(self) -> list[str]:
        """The cells of every probe on plain text."""
        arms = self.config.probes.text
        return [f"results/probes/text/{dataset}/{arm}.parquet" for dataset in self.config.datasets for arm in arms]

    def head_probes(self) -> list[str]:
        """The record of every head's probes; their cells lie beside it."""
        return [
            f"results/probes/{model}/{dataset}/{head.id}/probes.json"
            for model, dataset in self.captures
            for head in self.heads(model)
        ]
