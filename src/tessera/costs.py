"""What a config will cost, before anything is spent: downloads, a token, hours of a card, disk and hours of processors.

Nothing is opened or fetched. Sizes are counted from the config and from small tables of facts (`resources/reference`):
what models, SAEs and datasets hold, what cards can do, what the project's own benchmarks measured. What a run has left in
results/ is known better than any table says, and what is there already is not counted again.

Every amount carries its basis, the weakest of all that it was computed from, so that a guess is never read as a measurement;
and how many parts of it are unknown, so that a sum that lacks some says so.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from tessera.config import BorrowedSae, ControlSae, HubDataset, HubModel, Model, SaeRelease
from tessera.figure_names import paper_figures
from tessera.files import read_json
from tessera.plan import VISION, Head
from tessera.study import RESULTS, Study

# From the firmest to the weakest.
BASES = ("counted", "measured", "published", "estimated", "guess")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GIGA, MEGA, TERA, PETA, HOUR = 1e9, 1e6, 1e12, 1e15, 3600
# The poolings that are kept of hidden states, each a vector of float32.
KEPT_POOLINGS, FLOAT32 = 3, 4


@dataclass(frozen=True)
class Amount:
    """A number, the weakest thing that it rests on, and how many of its parts are unknown."""

    value: float = 0.0
    basis: str = "counted"
    missing: int = 0


UNKNOWN = Amount(missing=1)


def _weakest(amounts: Iterable[Amount]) -> str:
    return max((amount.basis for amount in amounts), key=BASES.index, default="counted")


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum of what is known, and how much of it is not."""
    parts = list(amounts)
    missing = sum(part.missing for part in parts)
    return Amount(sum(part.value for part in parts), _weakest(parts), missing)


def times(*amounts: Amount | float) -> Amount:
    """The product; a product with nothing is nothing, whatever else is unknown."""
    factors = [amount if isinstance(amount, Amount) else Amount(amount) for amount in amounts]
    if any(not factor.value and not factor.missing for factor in factors):
        return Amount()
    missing = max(factor.missing for factor in factors)
    return Amount(prod(factor.value for factor in factors), _weakest(factors), missing)


@dataclass(frozen=True)
class Card:
    """A card: its peak rates in TFLOP/s, its memory in GB, and the share of the peak that is taken to be reached."""

    name: str
    tflops: dict[str, float]
    memory_gb: float
    efficiency: float

    def hours(self, petaflop: Amount, precision: str) -> Amount:
        reached = self.tflops[precision] * TERA * self.efficiency
        return times(petaflop, Amount(PETA / reached / HOUR, "guess"))


class Facts:
    """The tables of facts in a folder: sizes.csv, rates.csv and cards.csv."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def _sizes(self) -> dict[tuple[str, str], Amount]:
        rows = _rows(self.folder / "sizes.csv")
        return {(row["what"], row["fact"]): Amount(float(row["value"]), row["basis"]) for row in rows}

    @cached_property
    def _rates(self) -> dict[str, Amount]:
        return {row["rate"]: Amount(float(row["value"]), row["basis"]) for row in _rows(self.folder / "rates.csv")}

    @cached_property
    def cards(self) -> list[Card]:
        return [
            Card(
                row["card"],
                {
                    precision: float(row[f"{column}_tflops"])
                    for precision, column in (
                        ("bfloat16", "bfloat16"),
                        ("float16", "bfloat16"),
                        ("tf32", "tf32"),
                        ("float32", "float32"),
                    )
                },
                float(row["memory_gb"]),
                float(row["efficiency"]),
            )
            for row in _rows(self.folder / "cards.csv")
        ]

    def size(self, what: str, fact: str) -> Amount:
        return self._sizes.get((what, fact), UNKNOWN)

    def rate(self, name: str) -> Amount:
        return self._rates[name]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


class Costs:
    """What a study will cost, from its config, the facts, and what its results folder holds already."""

    def __init__(self, study: Study, facts: Facts):
        self.study, self.facts, self.config = study, facts, study.config

    # --- what goes in ---

    def examples(self, dataset: str) -> Amount:
        record = RESULTS / "datasets" / f"{dataset}.json"
        if record.is_file():
            return Amount(read_json(record)["n_examples"], "measured")
        known, most = self._fact_of_dataset(dataset, "examples"), self.config.datasets[dataset].max_examples
        return Amount(min(known.value, most), known.basis) if most and not known.missing else known

    def tokens_each(self, model: str, dataset: str) -> Amount:
        """Tokens of an example, on average: as a capture has counted them, of this model sooner than of another."""
        folders = [RESULTS / "activations" / model, *sorted((RESULTS / "activations").glob("*"))]
        for manifest in (path for folder in folders for path in sorted((folder / dataset).glob("*/manifest.json"))):
            counted = read_json(manifest)
            return Amount(counted["tokens"]["read"] / max(1, counted["examples"]), "measured")
        if self.config.datasets[dataset].holds_images:
            return self._fact_of_model(model, "image_tokens")
        known = self._fact_of_dataset(dataset, "tokens")
        return Amount(min(known.value, self.config.models[model].max_length), known.basis, known.missing)

    def problems(self, dataset: str) -> Amount:
        """How many times a classifier is fitted: once for two classes, else once for each."""
        record = RESULTS / "datasets" / f"{dataset}.json"
        known = (
            Amount(len(read_json(record)["labels"]), "measured")
            if record.is_file()
            else self._fact_of_dataset(dataset, "classes")
        )
        return Amount(1, known.basis) if known.value == 2 else known

    def _fact_of_dataset(self, dataset: str, fact: str) -> Amount:
        """A fact of a dataset of the Hub; one of the splits that are read sooner than one of the repository."""
        source = self.config.datasets[dataset].source
        if not isinstance(source, HubDataset):
            return UNKNOWN
        found = self.facts.size(f"{source.hub}:{'+'.join(source.splits)}", fact)
        return self.facts.size(source.hub, fact) if found.missing else found

    def _fact_of_model(self, model: str, fact: str) -> Amount:
        source = self.config.models[model].source
        return self.facts.size(source.hub, fact) if isinstance(source, HubModel) else UNKNOWN

    def model_download(self, model: str) -> Amount:
        if not isinstance(self.config.models[model].source, HubModel) or _is_there("models", model):
            return Amount()
        size = times(self._fact_of_model(model, "parameters"), self._fact_of_model(model, "stored_bytes"))
        return times(size, 1 / GIGA)

    def gated(self) -> list[str]:
        """The repositories still to be fetched from that are known to want their terms accepted, and a token."""
        sections: dict[str, Any] = {"datasets": self.config.datasets, "models": self.config.models}
        hubs = {
            entry.source.hub
            for section, entries in sections.items()
            for name, entry in entries.items()
            if isinstance(entry.source, HubDataset | HubModel) and not _is_there(section, name)
        }
        return sorted(hub for hub in hubs if self.facts.size(hub, "gated").value)

    def sae_download(self, sae: str) -> Amount:
        """Encoder and decoder in float32, as releases keep them; what is borrowed or made is not fetched."""
        entry = self.config.saes[sae]
        if not isinstance(entry.source, SaeRelease) or _is_there("saes", sae):
            return Amount()
        return times(self._reads(sae), 2 * entry.width * FLOAT32 / GIGA, Amount(1, "estimated"))

    def dataset_download(self) -> Amount:
        """Each repository once, however many datasets are taken from it."""
        missing = {
            entry.source.hub: name
            for name, entry in self.config.datasets.items()
            if isinstance(entry.source, HubDataset) and not _is_there("datasets", name)
        }
        return total(self.facts.size(hub, "gigabytes") for hub in missing)

    def _reads(self, sae: str) -> Amount:
        """The size of the vectors that an SAE reads."""
        entry = self.config.saes[sae]
        return UNKNOWN if entry.site == "attn_z" else self._fact_of_model(entry.model, "hidden_size")

    def _active(self, sae: str) -> Amount:
        """Active features in a token: those that the release states, on another model as well."""
        source = self.config.saes[sae].source
        while isinstance(source, ControlSae | BorrowedSae):
            source = self.config.saes[source.control if isinstance(source, ControlSae) else source.borrowed].source
        stated = self.facts.size(f"{source.release}/{source.id}", "l0") if isinstance(source, SaeRelease) else UNKNOWN
        return self.facts.rate("active_features") if stated.missing else stated

    # --- captures ---

    def passes(self, model: str) -> Iterator[tuple[str, tuple[Head, ...]]]:
        """The passes that a model still owes, as dataset and heads."""
        for (reader, dataset), captures in self.study.captures.items():
            for capture, heads in captures.items():
                manifest = RESULTS / "activations" / model / dataset / capture / "manifest.json"
                if reader == model and not manifest.is_file():
                    yield dataset, heads

    def tokens(self, model: str, dataset: str) -> Amount:
        return times(self.examples(dataset), self.tokens_each(model, dataset))

    def forward(self, model: str, dataset: str, heads: Sequence[Head]) -> Amount:
        """PFLOP of a pass, up to the deepest layer that is read: two for each weight and token. Attention's own are left out."""
        depth = max((head.layer + (head.site != "resid_pre") for head in heads if head.site != VISION), default=0)
        weights = [times(self._fact_of_model(model, "block_parameters"), depth)]
        if self.config.datasets[dataset].holds_images:
            weights.append(self._fact_of_model(model, "vision_parameters"))
        return times(self.tokens(model, dataset), total(weights), 2 / PETA)

    def encode(self, model: str, dataset: str, heads: Sequence[Head]) -> Amount:
        """PFLOP of the SAEs' encoders."""
        saes = sorted({sae for head in heads for sae in head.saes if sae in self.config.saes})
        weights = total(times(self._reads(sae), self.config.saes[sae].width) for sae in saes)
        return times(self.tokens(model, dataset), weights, 2 / PETA)

    def shards(self, model: str, dataset: str, heads: Sequence[Head]) -> Amount:
        """GB that a capture writes."""
        vector = times(self._fact_of_model(model, "hidden_size"), FLOAT32 / GIGA)
        rate = times(self.facts.rate("bytes_per_active_feature"), 1 / GIGA)
        tokens = self.tokens(model, dataset)
        return total(
            times(tokens, self._active(head.sae), rate)
            if head.sae and head.sae in self.config.saes
            else times(tokens if head.every_token else times(self.examples(dataset), KEPT_POOLINGS), vector)
            for head in heads
        )

    def hours(self, model: str, card: Card) -> Amount:
        """Hours of a card for all passes of a model."""
        entry = self.config.models[model]
        return total(
            hours
            for dataset, heads in self.passes(model)
            for hours in (
                card.hours(self.forward(model, dataset, heads), entry.dtype),
                card.hours(self.encode(model, dataset, heads), entry.encode),
            )
        )

    def fits(self, model: str, card: Card) -> bool:
        """Whether the weights of a model leave room on a card; one of unknown size is not said to be too large."""
        weights = times(self._fact_of_model(model, "parameters"), BYTES[self.config.models[model].dtype] / GIGA)
        return weights.value <= 0.8 * card.memory_gb

    # --- probes ---

    def probe_hours(self, bound: str) -> Amount:
        """Hours of one processor for the grid of probes, at the `low` or the `high` of the measured rates."""
        rates = {name: self.facts.rate(f"{name}_seconds_{bound}") for name in self.config.probes.protocols}
        strict = rates.get("strict", Amount())
        parts = []
        for dataset, searches, curves in self._searches():
            fits = times(self.examples(dataset), self.problems(dataset), 1 / HOUR)
            parts += [times(fits, total(rates.values()), searches), times(fits, strict, curves)]
        return times(total(parts), Amount(1, "estimated"))

    def _searches(self) -> Iterator[tuple[str, int, int]]:
        """For each probe still owed its dataset, the searches that every protocol makes, and those of the curves."""
        probes = self.config.probes
        regimes = probes.regimes
        conditions = [*regimes.train_shares, *regimes.label_noise, *regimes.imbalance, *([1] * regimes.shuffled)]
        for model, dataset in self.study.captures:
            if dataset not in self.study.probed:
                continue
            for head in self.study.probed_heads(model):
                if (RESULTS / "probes" / model / dataset / head.id / "probes.json").is_file():
                    continue
                params = self.study.probe_params(model, head.id)
                chosen = probes.curve_poolings
                curved = [name for name in params["poolings"] if chosen is None or name in chosen]
                searches = len(params["poolings"]) * len(params["thresholds"]) * len(probes.classifiers)
                # Subsets by themselves read each example once more.
                searches *= 1 + (dataset in probes.alone)
                yield dataset, searches, len(curved) * (len(probes.sparse_k) + len(conditions))
        for path in map(Path, self.study.text_probes()):
            if not path.is_file() and path.stem in ("tfidf-word", "tfidf-char"):
                yield path.parent.name, 1 + (path.parent.name in probes.alone), 0

    # --- all of it ---

    def jobs(self, figures: Sequence[str]) -> dict[str, dict[str, int]]:
        """Rule -> its jobs, and those whose result is not there yet. What the demo world makes is not counted."""
        tables = ["tables", *(["transfer_tables"] if self.config.transfers else [])]
        files = {
            "dataset": [f"datasets/{name}.json" for name in self.config.datasets],
            "check": [f"checks/{name}.json" for name in self.study.probed],
            "model": [f"models/{name}/revision.json" for name in self.config.models],
            "sae": [f"saes/{name}/revision.json" for name in self.config.saes],
            "behaviour": [f"behaviours/{name}.json" for name in self.config.behaviours],
            "capture": [path.removeprefix("results/") for path in self.study.wanted_manifests()],
            "probe": [path.removeprefix("results/") for path in self.study.head_probes()],
            "probe_text": [path.removeprefix("results/") for path in self.study.text_probes()],
            "explore": [path.removeprefix("results/") for path in self.study.explored_files()],
            "transfer": [f"transfer/{name}/cells.parquet" for name in self.config.transfers],
            **{rule: [f"tables/{'cells' if rule == 'tables' else 'transfers'}.parquet"] for rule in tables},
            "figure": [f"figures/{name}.svg" for name in figures],
            "scoreboard": ["tables/scoreboard.parquet"],
            "findings": ["findings.json"],
            "report": ["report.html"],
        }
        return _counted(files)

    def paper_jobs(self) -> dict[str, dict[str, int]]:
        """The same of what the target `paper` makes beside the rest; of all figures that one job draws, the last one tells."""
        *_, last = paper_figures(self.study.probed_widths(), self.study.pictures())
        return _counted({"paper_figures": [f"figures/{last}.svg"], "paper_page": ["paper.html"]})

    def of_model(self, model: str) -> dict[str, Amount]:
        owed = list(self.passes(model))
        return {
            "model_gb": self.model_download(model),
            "saes_gb": total(self.sae_download(name) for name, sae in self.config.saes.items() if sae.model == model),
            "passes": Amount(len(owed)),
            "examples": total(self.examples(dataset) for dataset, _ in owed),
            "tokens": total(self.tokens(model, dataset) for dataset, _ in owed),
            "forward_pflop": total(self.forward(model, dataset, heads) for dataset, heads in owed),
            "encode_pflop": total(self.encode(model, dataset, heads) for dataset, heads in owed),
            "shards_gb": total(self.shards(model, dataset, heads) for dataset, heads in owed),
        }

    def everything(self, figures: Sequence[str]) -> dict[str, Any]:
        """The plan as plain data."""
        models = {name: self.of_model(name) for name in self.config.models}
        datasets_gb = self.dataset_download()
        fetched = total([datasets_gb, *(each[key] for each in models.values() for key in ("model_gb", "saes_gb"))])
        # An SAE is kept twice: as it came, in the Hub's cache, and as it is read.
        saes_again = total(each["saes_gb"] for each in models.values())
        shards = total(each["shards_gb"] for each in models.values())
        cards = {
            card.name: {
                "hours": {name: asdict(self.hours(name, card)) for name in models},
                "all": asdict(total(self.hours(name, card) for name in models)),
                "efficiency": card.efficiency,
                "too_large": [name for name in models if not self.fits(name, card)],
            }
            for card in self.facts.cards
        }
        return {
            "unpinned": len(self.study.unpinned()),
            "gated": self.gated(),
            "behaviours": len(self.config.behaviours),
            "transfers": len(self.config.transfers),
            "datasets": {
                name: {
                    "examples": asdict(self.examples(name)),
                    "tokens_each": asdict(self.tokens_each(_reader(self.config.models, name, self.study), name)),
                }
                for name in self.config.datasets
                if any(name == dataset for _, dataset in self.study.captures)
            },
            "models": {name: {key: asdict(amount) for key, amount in each.items()} for name, each in models.items()},
            "cards": cards,
            "datasets_gb": asdict(datasets_gb),
            "download_gb": asdict(fetched),
            "disk_gb": asdict(total([fetched, saes_again, shards])),
            "probe_hours": {bound: asdict(self.probe_hours(bound)) for bound in ("low", "high")},
            "jobs": self.jobs(figures),
            "paper_jobs": self.paper_jobs(),
        }


def _counted(files: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    return {
        rule: {"all": len(paths), "left": sum(not (RESULTS / path).is_file() for path in paths)}
        for rule, paths in files.items()
        if paths
    }


def _is_there(section: str, name: str) -> bool:
    """Whether a dataset, a model or an SAE has been brought in."""
    record = f"{name}.json" if section == "datasets" else f"{name}/revision.json"
    return (RESULTS / section / record).is_file()


def _reader(models: dict[str, Model], dataset: str, study: Study) -> str:
    """The first model that reads a dataset."""
    return next(model for model in models if (model, dataset) in study.captures)


# --- words ---------------------------------------------------------------------------------------------------------

LEGEND = """\
Bare numbers are counted, measured or published; ~ is estimated; ? rests on a guess, in two digits; > lacks what is unknown.
Cards are taken to reach the share of their peak that is named. Probes are as fast, and as slow, as the project's own
benchmarks have seen them; they run side by side, a job a core. Not in these numbers: attention's own products, loading,
models asked for behaviours ({behaviours}), and the classifiers of transfers ({transfers}). What lies in results/ already
is not counted again."""


def words(plan: dict[str, Any]) -> str:
    """The plan as a page of text: what whoever runs it has to decide by, and then what that is made of."""
    models = plan["models"]
    titles = ["fetch GB", "SAEs GB", "passes", "examples", "M tokens", "forward PFLOP", "encode PFLOP", "shards GB"]
    keys = ["model_gb", "saes_gb", "passes", "examples", "tokens", "forward_pflop", "encode_pflop", "shards_gb"]
    scales = {"tokens": 1 / MEGA}
    by_model = [[name, *(_shown(each[key], scales.get(key, 1)) for key in keys)] for name, each in models.items()]
    by_card = [
        [
            name,
            _shown(card["all"]),
            *(_shown(card["hours"][model]) for model in models),
            f"{card['efficiency']:.0%}",
            ", ".join(card["too_large"]) or "-",
        ]
        for name, card in plan["cards"].items()
    ]
    by_dataset = [
        [name, _shown(each["examples"]), _shown(each["tokens_each"])] for name, each in plan["datasets"].items()
    ]
    by_rule = [[rule, str(count["all"]), str(count["left"])] for rule, count in plan["jobs"].items()]
    jobs, more = (
        [str(sum(count[key] for count in plan[kind].values())) for key in ("all", "left")]
        for kind in ("jobs", "paper_jobs")
    )
    parts = [
        _summary(plan, int(jobs[1]), int(more[1])),
        _table(["hours on one", "all models", *models, "of its peak", "too large for it"], by_card) if models else "",
        _table(["model", *titles], by_model) if models else "",
        _table(["dataset", "examples", "tokens each"], by_dataset) if by_dataset else "",
        _table(["rule", "jobs", "left"], [*by_rule, ["all", *jobs], ["more for `paper`", *more]]),
        LEGEND.format(behaviours=plan["behaviours"], transfers=plan["transfers"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(plan: dict[str, Any], jobs: int, more: int) -> str:
    """What the whole takes, a line each, and what has to be done first."""
    lines = {
        "to fetch": f"{_shown(plan['download_gb'])} GB, of it datasets {_shown(plan['datasets_gb'])} GB",
        "disk when all is done": f"{_shown(plan['disk_gb'])} GB",
        "models": f"{_hours_on_cards(plan['cards'])}; more cards share the passes" if plan["models"] else "",
        "probes": " to ".join(_shown(plan["probe_hours"][bound]) for bound in ("low", "high"))
        + " hours of one processor core",
        "jobs": f"{jobs:,} left, and {more:,} more for `paper`",
        "a token": f"set HF_TOKEN, and accept the terms of {', '.join(plan['gated'])}" if plan["gated"] else "",
        "not pinned": f"{plan['unpinned']} of the datasets and models: run python -m tessera.pins FILE first"
        if plan["unpinned"]
        else "",
    }
    wide = max(map(len, lines))
    return "\n".join(f"{name.ljust(wide)}  {told}" for name, told in lines.items() if told)


def _hours_on_cards(cards: dict[str, Any]) -> str:
    """The first and the last of the cards that hold every model, which are listed from the fastest on."""
    fitting = [name for name, card in cards.items() if not card["too_large"]]
    if not fitting:
        return "no card that is known holds all of them"
    ends = list(dict.fromkeys([fitting[0], fitting[-1]]))
    return " or ".join(f"{_shown(cards[name]['all'])} hours on one {name}" for name in ends)


def _shown(amount: dict[str, Any], scale: float = 1) -> str:
    """An amount in three digits, a guess in two, with the marks of its basis."""
    value = amount["value"] * scale
    if amount["missing"] and not value:
        return "unknown"
    lacking, basis = ">" if amount["missing"] else "", amount["basis"]
    if basis == "guess" and value:
        value = float(f"{value:.1e}")
    number = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{lacking}{'~' if basis == 'estimated' else ''}{number}{'?' if basis == 'guess' else ''}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as they need to be; words to the left, numbers to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for line in lines
    )
