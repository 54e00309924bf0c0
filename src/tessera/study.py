"""What a config amounts to on disk: which captures serve which heads, which probes there are, and where all of it lies.

The workflow's rules ask a `Study` and do no arithmetic of their own, so what a config means can be tested, and used from
a notebook, without the workflow.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from itertools import permutations
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from tessera import fingerprint
from tessera.config import (
    UNPINNED,
    AnyTransfer,
    BorrowedSae,
    Config,
    ControlSae,
    DemoModel,
    DictionaryTransfer,
    ModalityTransfer,
    ModelTransfer,
)
from tessera.errors import UserError
from tessera.plan import ATTENTION, VISION, Head, hidden_head, plan, token_head, vision_head

RESULTS = Path("results")

# Bytes of a page that an example of a feature takes, about, and how many of them the report may hold and open at once.
TEXT_SIZE, IMAGE_SIZE = 2_000, 8_000
ROOM = 8_000_000


class Study:
    """A config and the results folder it is about, as they are when it is made."""

    def __init__(self, config: Config, memory: fingerprint.Memory | None = None):
        self.config = config
        self.memory = memory or fingerprint.Memory()
        self.plain = config.model_dump(mode="json")

    def entry(self, section: str, name: str) -> dict[str, Any]:
        """A config entry as a plain dict, less what only figures show."""
        return {key: value for key, value in sorted(self.plain[section][name].items()) if key != "title"}

    def titles(self) -> dict[str, dict[str, Any]]:
        """What figures call things, in the config's order."""
        found: dict[str, dict[str, Any]] = {
            section: {name: entry["title"] or name for name, entry in self.plain[section].items()}
            for section in ("datasets", "models", "behaviours")
        }
        return found | {
            "transfers": {
                name: {"kind": entry["kind"], "title": entry["title"] or name, "origin": entry.get("origin")}
                for name, entry in self.plain["transfers"].items()
            }
        }

    # --- sources ---

    def sources(self) -> dict[str, dict[str, Any]]:
        """Where datasets and models come from, by id."""
        return {
            section: {name: entry["source"] for name, entry in self.plain[section].items()}
            for section in ("datasets", "models")
        }

    def images(self) -> list[str]:
        """The datasets of images."""
        return [name for name, dataset in self.config.datasets.items() if dataset.holds_images]

    def local_source(self, section: str, name: str) -> str | None:
        """The path of a source on this disk, or None for one that is fetched or made."""
        source = self.plain[section][name]["source"]
        return next((source[key] for key in ("file", "saved", "images", "folder") if key in source), None)

    def unpinned(self) -> list[tuple[str, str]]:
        """The datasets and models, as section and id, whose commit has not been looked up."""
        return [
            (section, name)
            for section in ("datasets", "models")
            for name, entry in self.plain[section].items()
            if entry["source"].get("revision") == UNPINNED
        ]

    def require_pins(self, wanted: Collection[tuple[str, str]], files: Sequence[str]) -> None:
        """A `UserError` if any of the `wanted` sources is not pinned; `files` are those of the config."""
        found = [each for each in self.unpinned() if each in wanted]
        if found:
            section, name = found[0]
            more = f", and {len(found) - 1} others with it" if len(found) > 1 else ""
            mend = f"run python -m tessera.pins {' '.join(files)}, which asks the Hub and writes the commits there"
            raise UserError(f"{section}.{name}.source.revision", f"it is not pinned to a commit{more}", mend)

    def require_sources(self) -> None:
        """A `UserError` about the first local source that is not there, or not of its kind, before anything is planned around it."""
        for section in ("datasets", "models", "saes"):
            for name in self.plain[section]:
                if path := self.local_source(section, name):
                    source = self.plain[section][name]["source"]
                    _require(f"{section}.{name}.source", path, S_ISREG if "file" in source else S_ISDIR)

    def made_source(self, section: str, name: str) -> str | None:
        """The record of what the workflow makes and this source is taken from, or None for one it does not make."""
        source = self.plain[section][name]["source"]
        for key in ("control", "borrowed"):
            if key in source:
                return f"results/saes/{source[key]}/revision.json"
        if "demo" not in source:
            return None
        return {
            "datasets": f"results/demo/{source['demo']}.parquet",
            "models": f"results/demo/models/{source['demo']}/demo.json",
            "saes": f"results/demo/saes/{name}/demo.json",
        }[section]

    def fetches(self, section: str) -> bool:
        """Whether anything of a section comes from the Hub, which the nodes of a cluster seldom reach."""
        sources = [entry["source"] for entry in self.plain[section].values()]
        return any("hub" in source or "release" in source for source in sources)

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

    @property
    def probed(self) -> list[str]:
        """The datasets of the grid of probes."""
        chosen = self.config.probes.datasets
        labelled = [name for name, dataset in self.config.datasets.items() if dataset.label is not None]
        return labelled if chosen is None else chosen

    def probed_heads(self, model: str) -> list[Head]:
        """The heads of a model that are probed. A borrowed SAE stands in where the model has none of its own."""
        if self.config.probes.models is not None and model not in self.config.probes.models:
            return []
        heads = list(self._heads[model].values())
        own = any(head.sae and not head.matched and not self._is_borrowed(head.sae) for head in heads)
        return [
            head for head in heads if head.site != VISION and not (own and head.sae and self._is_borrowed(head.sae))
        ]

    def _is_borrowed(self, sae: str) -> bool:
        return isinstance(self.config.saes[sae].source, BorrowedSae)

    def heads(self, model: str, dataset: str) -> list[Head]:
        """The heads of a model that its capture of a dataset owes: those that are probed there, and those of transfers."""
        wanted = (
            set(self.probed_heads(model)) if dataset in self.probed and self.config.reads(model, dataset) else set()
        )
        for transfer in self.config.transfers:
            wanted |= {head for of, on, head in self.transfer_heads(transfer) if (of, on) == (model, dataset)}
        return [head for head in self._heads[model].values() if head in wanted]

    def head(self, model: str, name: str) -> Head:
        return self._heads[model][name]

    @cached_property
    def _heads(self) -> dict[str, dict[str, Head]]:
        heads = {
            name: [
                *map(hidden_head, model.layers),
                *map(token_head, model.token_layers),
                *([vision_head()] if model.images else []),
            ]
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
            (model, dataset): plan(RESULTS / "activations" / model / dataset, heads, self._sae_available)
            for model in self.config.models
            for dataset in self.config.datasets
            if (heads := self.heads(model, dataset))
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

    def probed_saes(self) -> dict[str, str]:
        """The SAEs that are probed, each with its model."""
        return {head.sae: model for model in self.config.models for head in self.probed_heads(model) if head.sae}

    def probed_widths(self) -> dict[str, list[int]]:
        """The widths of the SAEs that are probed on each dataset, from the narrowest on; of controls none."""
        found: dict[str, set[int]] = {dataset: set() for dataset in self.probed}
        for model, dataset in self.captures:
            if dataset in found:
                own = (head.sae for head in self.probed_heads(model) if head.sae and not head.matched)
                found[dataset] |= {self.config.saes[sae].width for sae in own}
        return {dataset: sorted(widths) for dataset, widths in found.items()}

    def probed_manifests(self) -> list[str]:
        """The manifests of the captures that probes read."""
        return sorted(
            {
                self.manifests[model, dataset, head]
                for model, dataset in self.captures
                if dataset in self.probed
                for head in self.probed_heads(model)
            }
        )

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

    def alone(self, dataset: str) -> dict[str, bool]:
        """Whether each subset of a dataset is also probed by itself."""
        return {"alone": dataset in self.config.probes.alone}

    def text_probes(self) -> list[str]:
        """The cells of every probe on plain text."""
        return [path for dataset in self.probed for path in self._text_probes_of(dataset)]

    def _text_probes_of(self, dataset: str) -> list[str]:
        """Those of one dataset. Images have no words: of the inputs that need no model theirs is the most frequent label alone."""
        arms = self.config.probes.text
        if self.config.datasets[dataset].holds_images:
            arms = [arm for arm in arms if arm == "majority"]
        return [f"results/probes/text/{dataset}/{arm}.parquet" for arm in arms]

    def head_probes(self) -> list[str]:
        """The record of every head's probes; their cells lie beside it."""
        return [
            f"results/probes/{model}/{dataset}/{head.id}/probes.json"
            for model, dataset in self.captures
            if dataset in self.probed
            for head in self.probed_heads(model)
        ]

    # --- explorer ---

    def explored(self) -> list[tuple[str, str]]:
        """The models and datasets whose best SAE probe is laid out."""
        if not self.config.explorer.features:
            return []
        return [(model, dataset) for model, dataset in self.captures if self._explored_heads(model, dataset)]

    def explored_files(self) -> list[str]:
        return [f"results/explorer/{model}/{dataset}.json" for model, dataset in self.explored()]

    def explorer_pages(self) -> dict[str, str]:
        """The explorer's files that get a page beside the report, and that page: all, if they would make it slow to open."""
        shown = self.config.explorer
        each = [shown.examples * self._example_size(dataset) for _, dataset in self.explored()]
        if shown.features * sum(each) <= ROOM:
            return {}
        return {
            f"results/explorer/{model}/{dataset}.json": f"results/report/{model}/{dataset}.html"
            for model, dataset in self.explored()
        }

    def _example_size(self, dataset: str) -> int:
        return IMAGE_SIZE if self.config.datasets[dataset].holds_images else TEXT_SIZE

    def _explored_heads(self, model: str, dataset: str) -> list[Head]:
        """The heads whose probes may be the best; controls are none of them."""
        probed = self.probed_heads(model) if dataset in self.probed else []
        return [head for head in probed if head.sae and not head.matched]

    def explorer_heads(self, model: str, dataset: str) -> dict[str, dict[str, Any]]:
        """For each of these heads its SAE, and the manifest of every dataset that it has read, the given one first."""
        names = [dataset, *(name for name in self.config.datasets if name != dataset)]
        return {
            head.id: {
                "sae": head.sae,
                "manifests": {name: found for name in names if (found := self.manifests.get((model, name, head)))},
            }
            for head in self._explored_heads(model, dataset)
        }

    def explorer_probes(self, model: str, dataset: str) -> dict[str, list[str]]:
        """The probes that are laid out, and those whose verdicts stand beside them: records of heads, cells on text."""
        heads = [head for head in self.probed_heads(model) if not head.matched]
        return {
            "head_probes": [f"results/probes/{model}/{dataset}/{head.id}/probes.json" for head in heads],
            "text_probes": [path for path in self._text_probes_of(dataset) if Path(path).stem.startswith("tfidf-")],
        }

    # --- transfers ---

    def transfer_heads(self, name: str) -> list[tuple[str, str, Head]]:
        """What a transfer reads, as model, dataset and head."""
        entry = self.config.transfers[name]
        return [
            (model, dataset, head)
            for model in self.config.models_of(name)
            for head in self._read_for(entry, model)
            for dataset in self.config.datasets_of(name)
            if head.site != VISION or self.config.datasets[dataset].holds_images
        ]

    def _read_for(self, entry: AnyTransfer, model: str) -> Iterator[Head]:
        """The heads of a model that a transfer takes: no controls, no states of every token."""
        paired = None
        if isinstance(entry, DictionaryTransfer):
            paired = self._paired(entry.models)
        for head in self._heads[model].values():
            if head.site == VISION:
                if isinstance(entry, ModalityTransfer):
                    yield head
            elif head.sae:
                among = entry.saes is None or head.sae in entry.saes
                if not head.matched and among and (paired is None or head.sae in paired):
                    yield head
            elif not head.every_token and paired is None and (entry.layers is None or head.layer in entry.layers):
                yield head

    def _paired(self, models: Sequence[str]) -> set[str]:
        """The SAEs that are read on a sibling, these readings, and what each reader has of its own of the same size there."""
        saes = self.config.saes
        pairs = list(self.config.borrowed_between(models))
        alike = {
            name
            for name, sae in saes.items()
            for _, there in pairs
            if not isinstance(sae.source, ControlSae | BorrowedSae)
            and all(getattr(sae, key) == getattr(saes[there], key) for key in ("model", "layer", "site", "width"))
        }
        return alike | {sae for pair in pairs for sae in pair}

    def transfer_inputs(self, name: str) -> list[dict[str, Any]]:
        """A transfer's classifier inputs that models give: what each is called, and the manifest for each dataset."""
        entry = self.config.transfers[name]
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for model, dataset, head in self.transfer_heads(name):
            called = self.probe_params(model, head.id)
            poolings = entry.sae_poolings if head.sae else entry.hidden_poolings
            if head.site == VISION:
                called, poolings = {**called, "arm": "vision", "layer": None}, ["mean"]
            known = found.setdefault(
                (model, head.id),
                {
                    **{key: called[key] for key in ("arm", "layer", "width")},
                    "model": model,
                    "head": head.id,
                    "poolings": poolings,
                    "thresholds": entry.thresholds if head.sae else [None],
                    "manifests": {},
                },
            )
            known["manifests"][dataset] = self.manifests[model, dataset, head]
        return list(found.values())

    def transfer_files(self, name: str) -> list[str]:
        """The records that a transfer depends on."""
        entry = self.config.transfers[name]
        manifests = {path for given in self.transfer_inputs(name) for path in given["manifests"].values()}
        records = [f"results/datasets/{dataset}.json" for dataset in self.config.datasets_of(name)]
        behaviours = entry.behaviours if isinstance(entry, ModelTransfer) else []
        asked = [f"results/behaviours/{behaviour}.json" for behaviour in behaviours]
        saes = []
        if isinstance(entry, DictionaryTransfer):
            saes = sorted({sae for pair in self._other_widths(entry.models) for sae in pair})
        return [*sorted(manifests), *records, *asked, *(f"results/saes/{sae}/revision.json" for sae in saes)]

    def _other_widths(self, models: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Pairs of SAEs that models have of their own at one place, the narrower first."""
        own = {
            name: sae
            for name, sae in self.config.saes.items()
            if sae.model in models and not isinstance(sae.source, ControlSae | BorrowedSae)
        }
        for (a, of_a), (b, of_b) in permutations(own.items(), 2):
            if of_a.width < of_b.width and all(
                getattr(of_a, key) == getattr(of_b, key) for key in ("model", "layer", "site")
            ):
                yield a, b

    def transfer_tables(self, name: str) -> list[str]:
        """The tables of the datasets that a transfer is about."""
        return [f"results/datasets/{dataset}.parquet" for dataset in self.config.datasets_of(name)]

    def transfer_settings(self, name: str) -> dict[str, Any]:
        """The entry of a transfer, and what else its numbers depend on."""
        entry = self.config.transfers[name]
        found = self.entry("transfers", name) | {"inputs": self.transfer_inputs(name)}
        found["strict"] = {key: self.plain["probes"]["strict"][key] for key in ("inner_folds", "c")}
        found["l1_penalties"] = self.plain["probes"]["l1_penalties"]
        if isinstance(entry, ModelTransfer):
            found["asked"] = {
                name: {key: self.plain["behaviours"][name][key] for key in ("dataset", "model")}
                for name in entry.behaviours
            }
        if isinstance(entry, DictionaryTransfer):
            found["pairs"] = [list(pair) for pair in self.config.borrowed_between(entry.models)]
            found["of"] = {given["head"]: given["model"] for given in found["inputs"]}
            found["matched"] = [list(pair) for pair in self._other_widths(entry.models)]
            found["saes_of"] = {
                sae: {key: self.plain["saes"][sae][key] for key in ("model", "layer", "width")}
                for sae in sorted({sae for pair in found["matched"] for sae in pair})
            }
        return found | {"tables": self.config.datasets_of(name)}

    def image_transfers(self) -> dict[str, str]:
        """The transfers between modalities, each with its dataset of images."""
        found = self.config.transfers.items()
        return {name: entry.images for name, entry in found if isinstance(entry, ModalityTransfer)}

    def pictures(self) -> list[str]:
        """The datasets of images that are probed, or read by a transfer between modalities."""
        read = {*self.probed, *self.image_transfers().values()}
        return [name for name in self.images() if name in read]

    def transfer_kinds(self) -> dict[str, str]:
        """The kind of each transfer, in the config's order."""
        return {name: entry.kind for name, entry in self.config.transfers.items()}


def _require(key: str, path: str, of_kind: Callable[[int], bool]) -> None:
    """A `UserError` unless a path leads to a file, or to a folder. What is neither may never end, as /dev/zero does."""
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UserError(key, f"there is no '{path}'", f"correct the path; it is relative to {Path.cwd()}") from None
    except OSError as error:
        raise UserError(key, f"'{path}' cannot be reached ({error.strerror})", "correct the path") from None
    if not of_kind(mode):
        found = "a folder" if S_ISDIR(mode) else "a file" if S_ISREG(mode) else "neither a file nor a folder"
        wanted = "a file" if of_kind is S_ISREG else "a folder"
        raise UserError(key, f"'{path}' is {found}", f"give the path of {wanted}")
