"""A run's own cells beside the published ones, and the six findings judged on either.

Every published cell has a row for each protocol that the run has cells of. It is *comparable* if the run has exactly one
cell of the same repository of model and data, the same part of the data, arm, layer, width, pooling, threshold and
classifier; otherwise the row says which of these is missing, in that order. A part is a dataset of the run, or a subset of
one that is probed alone (`probes.alone`). Where the run comes near without being the same (it trained on all languages at
once and has a score for this one, or it drew a sample of the data), the near score is shown and the row stays not
comparable.

A comparable cell *matches* if the difference is within what two measurements of one truth may differ by: 1.96 standard
errors of a difference, of which one is the published noise (`tessera.reference`) and the other the sampling error of the
run's own test part. Under `strict` the run's score is the mean over its splits, whose error is at most that.

A dataset or model is known by its Hub repository. A copy on disk is not known to be the same, and is not compared.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tessera import claims, reference, results, tables, transfer_results
from tessera.errors import UserError
from tessera.reference import EVERY, REACH, Reference
from tessera.regimes import ALONE, FULL
from tessera.results import rows_of

Row = dict[str, Any]
Sources = Mapping[str, Mapping[str, Mapping[str, Any]]]

COMPARABLE, NOT_COMPARABLE = "comparable", "not comparable"
MATCHES, HIGHER, LOWER = "matches", "higher", "lower"
PROTOCOLS = ("paper", "strict")
# Test parts of one dataset that differ by more than this are not of the same data.
SIZES = 1.25

ARMS = ("sae", "hidden")
SETTINGS = ("layer", "width", "pooling", "threshold", "classifier")
OURS = ["dataset", "regime", "subset", "model", "head", "arm", *SETTINGS]

TABLE = pa.schema(
    [(name, pa.string()) for name in ("protocol", "experiment", "model", "dataset", "part", "arm")]
    + [("layer", pa.int32()), ("width", pa.int32()), ("pooling", pa.string()), ("threshold", pa.float64())]
    + [("classifier", pa.string()), ("published", pa.float64()), ("n_published", pa.int32())]
    + [(name, pa.float64()) for name in ("published_low", "published_high", "noise", "ours")]
    + [("our_dataset", pa.string()), ("our_model", pa.string()), ("our_head", pa.string()), ("n_seeds", pa.int32())]
    + [(name, pa.float64()) for name in ("difference", "reach")]
    + [(name, pa.string()) for name in ("status", "verdict", "reason", "source_file", "source_commit")]
)


def write(
    *,
    cells: Path | str,
    transfers: Path | str | None,
    published: Path | str,
    sources: Sources,
    images: Sequence[str],
    output: Path | str,
) -> None:
    """Write the tables `scoreboard` and `claims` into the folder `output`.

    `cells` and `transfers` are a run's tables, `published` the folder of the published numbers, `sources` the sources of
    the config's `datasets` and `models` by id, and `images` the ids of the datasets that are images.
    """
    known = reference.load(published)
    found = results.read_table(Path(cells), results.WORDS["cells"], [*results.NUMBERS["cells"], "n_test", "n_classes"])
    moved = None
    if transfers is not None:
        words, numbers = (of["transfers"] for of in (transfer_results.WORDS, transfer_results.NUMBERS))
        moved = results.read_table(Path(transfers), words, numbers)
    run = Run(found, moved, sources, images)
    tables.write(pa.Table.from_pylist(list(compared(run, known)), TABLE), Path(output) / "scoreboard.parquet")
    tables.write(claims.table(all_claims(run, known)), Path(output) / "claims.parquet")


class Run:
    """The cells of a run: what competes, a row a configuration, splits averaged; and what its datasets and models are."""

    def __init__(
        self, cells: pd.DataFrame, transfers: pd.DataFrame | None, sources: Sources, images: Sequence[str] = ()
    ):
        self.sources, self.images = sources, set(images)
        self.cells = {protocol: _over_splits(cells, protocol) for protocol in PROTOCOLS}
        self.transfers = _behaviours(transfers)
        self.datasets, self.models = (_by_repository(sources[section]) for section in ("datasets", "models"))
        self.by_place = {protocol: _by_place(found) for protocol, found in self.cells.items()}

    def repository(self, section: str, name: str) -> str | None:
        return self.sources[section].get(name, {}).get("hub")


def _over_splits(cells: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """The competing cells of hidden states and SAEs under a protocol: scores are means over the splits that have one."""
    here = cells[(cells["protocol"] == protocol) & cells["regime"].isin([FULL, ALONE]) & cells["k"].isna()]
    here = here[here["arm"].isin(ARMS)]
    good = here["status"] == "ok"
    scores = here.assign(
        macro_f1=here["macro_f1"].where(good),
        validation=here["validation"].where(good),
        why=here["reason"].where(~good),
    )
    return (
        scores.groupby(OURS, dropna=False, sort=False)
        .agg(
            macro_f1=("macro_f1", "mean"),
            validation=("validation", "mean"),
            n_seeds=("macro_f1", "count"),
            n_test=("n_test", "mean"),
            n_classes=("n_classes", "max"),
            why=("why", lambda why: min(why.dropna(), default="")),
        )
        .reset_index()
    )


def _behaviours(transfers: pd.DataFrame | None) -> pd.DataFrame:
    """What transfers score on behaviours, each arm having chosen head and pooling itself."""
    columns = ["target", "model", "arm", "macro_f1"]
    if transfers is None:
        return pd.DataFrame(columns=columns)
    here = transfers[(transfers["kind"] == "model") & (transfers["status"] == "ok") & transfers["arm"].isin(ARMS)]
    return here[here["head"].isna() & (here["share"] == 1) & (here["selection"] == "none")][columns]


def _by_repository(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name, source in sources.items():
        if source.get("hub"):
            found[source["hub"]].append(name)
    return dict(found)


# Dataset, what it is trained on, the subset that is scored, model and arm.
Place = tuple[str, str, str, str, str]


def _by_place(cells: pd.DataFrame) -> dict[Place, list[Any]]:
    found: dict[Place, list[Any]] = defaultdict(list)
    for row in rows_of(cells):
        found[row.dataset, row.regime, row.subset, row.model, row.arm].append(row)
    return dict(found)


# --- the scoreboard ------------------------------------------------------------------------------------------------


def compared(run: Run, known: Reference) -> Iterator[Row]:
    """A row for each published cell and each protocol that the run has cells of; without any, for the paper's."""
    for protocol in [name for name in PROTOCOLS if len(run.cells[name])] or PROTOCOLS[:1]:
        for cell in rows_of(known.cells):
            given = {name: getattr(cell, name) for name in TABLE.names if hasattr(cell, name)}
            told = {
                name: None if isinstance(value, float) and np.isnan(value) else value for name, value in given.items()
            }
            yield told | {"protocol": protocol, "status": NOT_COMPARABLE} | _beside(run, cell, protocol)


def _beside(run: Run, cell: Any, protocol: str) -> Row:
    """What stands beside a published cell: the run's score and how the two compare, or why they do not."""
    if not cell.known:
        return {"reason": "the published table does not say how tokens were pooled"}
    for section, wanted, ours in (("dataset", cell.dataset, run.datasets), ("model", cell.model, run.models)):
        if wanted not in ours:
            return {"reason": f"no {section} of the run is {wanted}"}
    looked = [_looked_up(run, cell, name, protocol) for name in run.datasets[cell.dataset]]
    same = [row for row, problem in looked if not problem]
    if len(same) > 1:
        return {"reason": f"several datasets of the run are it: {', '.join(row.dataset for row in same)}"}
    if same:
        return _measured(cell, same[0])
    row, reason = next((found for found in looked if found[0] is not None), looked[0])
    return {"reason": reason} | (_ours(row) if row is not None else {})


def _looked_up(run: Run, cell: Any, dataset: str, protocol: str) -> tuple[Any, str]:
    """The run's cell on one of its datasets that is or comes near the published one, and what is not the same about it."""
    part, problem = part_of(run, dataset, cell.part, protocol)
    if part is None:
        return None, problem
    row, missing = _matching(run, cell, dataset, part, protocol)
    if missing:
        return None, missing
    return row, problem or other_size(row.n_test, cell.n_test)


def other_size(ours: float, published: float) -> str:
    """Whether so many more or fewer examples were tested that it cannot be the same data; nothing if a size is unknown."""
    if np.isnan(published) or 1 / SIZES <= ours / published <= SIZES:
        return ""
    return f"ours is tested on {ours:,.0f} examples, the published score on about {published:,.0f}"


def part_of(run: Run, name: str, part: str, protocol: str) -> tuple[tuple[str, str] | None, str]:
    """Which regime and subset of a dataset of the run is the published part of it, and what is not the same about it."""
    source = run.sources["datasets"][name]
    configs = source.get("configs") or [source.get("config")]
    splits = source.get("splits") or []
    if configs == [part] or (configs == [None] and splits == [part]):
        return (FULL, "all"), ""
    places = {key[1:3] for key in run.by_place[protocol] if key[0] == name}
    if (ALONE, part) in places:
        return (ALONE, part), ""
    if (FULL, part) in places:
        return (
            FULL,
            part,
        ), "ours is trained on all parts of the dataset together, the published probe on this one alone"
    read = [word for word in [*configs, *splits] if word]
    if source.get("subset") and part in read:
        return None, f"the run has no cells of {part} by itself"
    return (
        None,
        f"the run reads {' and '.join(read) or 'another part'} of the dataset, the published score is of {part}",
    )


def _matching(run: Run, cell: Any, dataset: str, part: tuple[str, str], protocol: str) -> tuple[Any, str]:
    """The run's one cell with the settings of the published one, or the first thing that is missing."""
    found = [
        row
        for model in run.models[cell.model]
        for row in run.by_place[protocol].get((dataset, *part, model, cell.arm), [])
    ]
    if not found:
        as_transfer = ((run.transfers["target"] == dataset) & run.transfers["model"].isin(run.models[cell.model])).any()
        if as_transfer:
            return None, "the run scores it as a transfer, which chooses the pooling itself"
        return None, f"the run has no cells of the {cell.arm} arm of this model on this dataset"
    for setting in SETTINGS:
        wanted = getattr(cell, setting)
        found = [row for row in found if _same(getattr(row, setting), wanted)]
        if not found:
            return None, f"the run has no such cell with {_setting_words(setting, wanted)}"
    if len(found) > 1:
        heads = ", ".join(sorted(f"{row.head} of {row.model}" for row in found))
        return None, f"several cells of the run are it: {heads}"
    (row,) = found
    return row, "" if row.n_seeds else f"failed: {row.why}"


def _same(ours: Any, wanted: Any) -> bool:
    return bool(ours == wanted or (pd.isna(ours) and pd.isna(wanted)))


def _setting_words(setting: str, wanted: Any) -> str:
    if isinstance(wanted, str):
        return f"{setting} {wanted}"
    return f"no {setting}" if np.isnan(wanted) else f"{setting} {wanted:,.10g}"


def _ours(row: Any) -> Row:
    places = {"our_dataset": row.dataset, "our_model": row.model, "our_head": row.head}
    return {"ours": row.macro_f1, "n_seeds": row.n_seeds} | places


def _measured(cell: Any, row: Any) -> Row:
    difference = row.macro_f1 - cell.published
    told = _ours(row) | {"status": COMPARABLE, "difference": difference, "reason": ""}
    if not np.isfinite(cell.noise):
        return told | {"reason": "the published noise is unknown"}
    reach = REACH * float(np.hypot(cell.noise, reference.sampling_error(row.macro_f1, row.n_test)))
    verdict = MATCHES if abs(difference) <= reach else HIGHER if difference > 0 else LOWER
    return told | {"reach": reach, "verdict": verdict}


# --- the six findings ----------------------------------------------------------------------------------------------


def all_claims(run: Run, known: Reference) -> list[Row]:
    """Every claim under either protocol, on the published numbers and on the run's."""
    found: list[Row] = []
    for protocol in PROTOCOLS:
        nothing = "" if protocol == "paper" else "the published scores follow the paper's protocol alone"
        published = claims.frame_of([] if nothing else list(published_cells(known)))
        found += claims.judged(published, protocol, "published", nothing)
        ours = claims.frame_of(list(own_cells(run, known, protocol)))
        found += claims.judged(ours, protocol, "ours", "" if len(ours) else f"the run has no cells under {protocol}")
    return found


def published_cells(known: Reference) -> Iterator[Row]:
    """The published cells as the claims read them: those whose pooling is known, and the authors' best of each dataset."""
    for cells in (known.cells[known.cells["known"] & (known.cells["classifier"] == "l2")], known.best):
        for row in rows_of(cells):
            yield {
                **{name: getattr(row, name) for name in ("model", "dataset", "part", "arm", *SETTINGS[:4])},
                "kind": known.kinds[_kind_known(known, row.dataset)],
                "group": reference.layer_group(row.layer),
                "macro_f1": row.published,
                "choice": row.published,
            }


def _kind_known(known: Reference, dataset: str) -> str:
    if dataset not in known.kinds:
        raise UserError(reference.DATASETS, f"it lacks '{dataset}'", "add a row for the dataset")
    return dataset


def own_cells(run: Run, known: Reference, protocol: str) -> Iterator[Row]:
    """The run's cells as the claims read them: logistic regression, on whole datasets or on subsets alone where there are
    such; and behaviours from transfers.

    Datasets of one repository are parts of one unit, and so are their subsets. A configuration is chosen by what its
    protocol chooses by.
    """
    cells = run.cells[protocol]
    alone = cells["regime"] == ALONE
    whole = (cells["subset"] == "all") & ~cells["dataset"].isin(set(cells.loc[alone, "dataset"]))
    cells = cells[(alone | whole) & (cells["classifier"] == "l2") & cells["macro_f1"].notna()]
    groups = _groups(run, known, cells)
    kinds = _kinds(run, known, cells)
    for row in rows_of(cells):
        hub = run.repository("datasets", row.dataset)
        yield {
            **{name: getattr(row, name) for name in ("model", "arm", "macro_f1", *SETTINGS[:4])},
            "dataset": hub or row.dataset,
            "part": _part(row, hub),
            "kind": kinds[row.dataset],
            "group": groups.get((row.model, row.layer)),
            "choice": row.macro_f1 if protocol == "paper" else row.validation,
        }
    if protocol == "strict":
        yield from _from_transfers(run, set(cells["dataset"]))


def _part(row: Any, hub: str | None) -> str:
    """Which part of its unit a cell is about."""
    if row.regime == ALONE:
        return f"{row.dataset}, {row.subset}"
    return row.dataset if hub else EVERY


def _from_transfers(run: Run, probed: set[str]) -> Iterator[Row]:
    for row in rows_of(run.transfers):
        if row.target not in probed:
            hub = run.repository("datasets", row.target)
            none = dict.fromkeys(("layer", "group", "width", "threshold"))
            told = {"model": row.model, "arm": row.arm, "macro_f1": row.macro_f1, "choice": row.macro_f1}
            place = {"dataset": hub or row.target, "part": row.target if hub else EVERY}
            yield told | place | none | {"kind": "behaviour", "pooling": claims.CHOSEN}


MANY = 10


def _kinds(run: Run, known: Reference, cells: pd.DataFrame) -> dict[str, str]:
    """What kind of task each dataset of the run is: what is known of its repository, else what can be seen."""
    classes = cells.groupby("dataset")["n_classes"].max()
    found = {}
    for name, number in classes.items():
        seen = "vision" if name in run.images else "many-class" if number >= MANY else "text"
        found[str(name)] = known.kinds.get(run.repository("datasets", str(name)) or "", seen)
    return found


def _groups(run: Run, known: Reference, cells: pd.DataFrame) -> dict[tuple[str, float], str]:
    """Early, middle or late for each layer that SAEs read."""
    published = set(known.cells["model"])
    found: dict[tuple[str, float], str] = {}
    for model, of_model in cells[cells["arm"] == "sae"].groupby("model"):
        as_published = run.repository("models", str(model)) in published
        groups = reference.layer_groups(of_model["layer"].dropna(), published=as_published)
        found |= {(str(model), layer): group for layer, group in groups.items()}
    return found
