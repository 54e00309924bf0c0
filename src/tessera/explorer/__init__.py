"""The explorer's data: what the best SAE probe of a task looks at, and why it decides as it does.

For each probed dataset and model with SAEs one JSON file: the strongest features of the probe with their weights over the
splits, how often each is active by label, part and dataset, and the user's own examples in which it is strongest, token by
token; and for some test examples the features that decide them. A feature that tells a part or a dataset rather than a
label is a shortcut, and shows itself here.

The file holds ids and no titles, so that what a page calls things changes nothing. The same inputs give the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera import answers, examples
from tessera.explorer import activity, dictionary, images, reasons, task
from tessera.explorer.strongest import Shown, rates, strongest
from tessera.explorer.task import Choices, Fitted, Labelled
from tessera.explorer.weights import TOP, Weighed, weighed
from tessera.files import read_json, replacing
from tessera.pictures import Picture
from tessera.protocols import FIRST
from tessera.snapshots import require_whole

Array = npt.NDArray[Any]

FORMAT = 1
# Significant digits of a number, and characters of a text, in the file.
DIGITS, TEXT = 4, 600


def write(
    path: Path,
    *,
    model: str,
    dataset: str,
    results: Path,
    cell_files: Sequence[Path],
    heads: Mapping[str, Mapping[str, Any]],
    strict: Mapping[str, Any],
    settings: Mapping[str, int],
) -> None:
    """Write the file of one dataset and model.

    `heads` says for each SAE head its `sae` and the `manifests` of the datasets that it has read, the task's own among
    them. `settings` are how many `features`, `examples` of a feature and `predictions` to show.
    """
    table_path = results / "datasets" / f"{dataset}.parquet"
    labelled = Labelled(examples.read(table_path, read_json(table_path.with_suffix(".json"))["sha256"]))
    choices = Choices(cell_files, table_path, dataset, model)
    found: dict[str, Any] = {
        "format": FORMAT,
        "task": _task(labelled, dataset, model, results),
        "failed": choices.failure(),
        "top": min(TOP, settings["features"]),
        "probe": None,
        "features": [],
        "predictions": [],
        "images": {},
    }
    if found["failed"] is None:
        head = heads[choices.first["head"]]
        page = _Page(results, dataset, model, labelled, choices, head, strict, settings)
        found |= {"probe": page.probe(), "features": page.features(), "predictions": page.predictions()}
        found["images"] = page.images([*found["predictions"], *(e for f in found["features"] for e in f["examples"])])
    content = json.dumps(_rounded(found), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(content + "\n", encoding="utf-8")


def _task(labelled: Labelled, dataset: str, model: str, results: Path) -> dict[str, Any]:
    record = read_json(results / "datasets" / f"{dataset}.json")
    return {
        "dataset": dataset,
        "model": model,
        "kind": "text" if labelled.table.texts is not None else "image",
        "labels": labelled.labels,
        "subsets": labelled.subsets,
        "n_examples": len(labelled.table),
        "demo": "demo" in record["source"],
    }


class _Page:
    """All of a task that has a probe."""

    def __init__(
        self,
        results: Path,
        dataset: str,
        model: str,
        labelled: Labelled,
        choices: Choices,
        head: Mapping[str, Any],
        strict: Mapping[str, Any],
        settings: Mapping[str, int],
    ) -> None:
        self.dataset, self.labelled, self.choices, self.settings = dataset, labelled, choices, settings
        self.head, self.sae = choices.first["head"], head["sae"]
        self.captures = {name: Path(manifest).parent for name, manifest in head["manifests"].items()}
        self.model_folder, self.sae_folder = results / "models" / model, results / "saes" / head["sae"]
        # Of the model the tokenizer alone is read.
        require_whole(self.model_folder, without="*.safetensors")
        require_whole(self.sae_folder)
        self.fitted: Fitted = task.fit(choices, labelled, self.captures[dataset], strict)
        self.weighed: Weighed = weighed(
            self.fitted.weighed, self.fitted.splits, self.fitted.models, settings["features"]
        )

    def probe(self) -> dict[str, Any]:
        return {**self.choices.told(), "sae": self.sae, "n_seeds": len(self.fitted.models)}

    def features(self) -> list[dict[str, Any]]:
        listed = self.weighed.strongest(self.settings["features"])
        largest = {name: activity.largest(capture, self.head, listed) for name, capture in self._ordered()}
        own, pooled = largest[self.dataset], self.fitted.pooled[:, listed].toarray()
        by_label, by_subset = rates(own > 0, self.labelled)
        by_dataset = [(name, (values > 0).mean(axis=0)) for name, values in largest.items()]
        groups, most = self.labelled.table.groups, self.settings["examples"]
        rows = {
            feature: strongest(pooled[:, at], own[:, at], groups, most) for at, feature in enumerate(listed.tolist())
        }
        shown = Shown(
            self.labelled,
            self.captures[self.dataset],
            self.head,
            self.model_folder,
            last=self.choices.first["pooling"] == "last",
        )
        shown_of = shown.examples(rows, {feature: pooled[:, at] for at, feature in enumerate(listed.tolist())})
        stability, near = self.weighed.stability(), dictionary.neighbours(self.sae_folder, listed)
        return [
            {
                "feature": feature,
                "strength": self.weighed.strength[feature],
                "weights": self.weighed.labels(feature),
                "stability": stability[feature],
                "same_sign": self.weighed.same_sign(feature),
                "rates": {
                    "label": by_label[at],
                    "subset": by_subset[at],
                    "dataset": [(name, values[at]) for name, values in by_dataset],
                },
                "largest": own[:, at].max(),
                "neighbours": near[at],
                "link": dictionary.link(self.sae_folder, feature),
                "examples": shown_of[feature],
            }
            for at, feature in enumerate(listed.tolist())
        ]

    def _ordered(self) -> list[tuple[str, Path]]:
        """The captures that hold the head, that of the task's own dataset first."""
        return sorted(self.captures.items(), key=lambda item: item[0] != self.dataset)

    def predictions(self) -> list[dict[str, Any]]:
        at = next(at for at, split in enumerate(self.fitted.splits) if split.seed == FIRST)
        model, X = self.fitted.models[at], self.fitted.weighed
        tested = np.flatnonzero(self.fitted.splits[at].test)
        right = model.predict(X[tested]) == self.labelled.codes[tested]
        others = {
            arm: answers.probable(chosen.cells[FIRST])
            for arm in ("hidden", "tfidf")
            if FIRST in (chosen := self.choices.of(arm)).cells
        }
        found = []
        for row in reasons.sample(tested, right, self.settings["predictions"]).tolist():
            lead = reasons.lead(model, X[[row]])
            where = self.labelled.where(row)
            verdicts = {"sae": (lead.verdict, lead.probability)}
            verdicts |= {arm: of_arm[where["example"]] for arm, of_arm in others.items()}
            values = self.fitted.pooled[[row]][:, lead.features].toarray()[0].tolist()
            found.append({**where, **self._text(row), "verdicts": verdicts, **lead.told(values)})
        return found

    def _text(self, row: int) -> dict[str, str]:
        texts = self.labelled.table.texts
        return {} if texts is None else {"text": texts[row][:TEXT]}

    def images(self, shown: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """The images of all examples that are shown, by their ids."""
        encoded, ids = self.labelled.table.images, {one["example"] for one in shown}
        if encoded is None:
            return {}
        given = zip(self.labelled.table.ids, encoded, strict=True)
        return images.shown((Picture(name, image) for name, image in given if name in ids), self.model_folder)


def _rounded(value: Any) -> Any:
    """Plain data, with numbers as short as they are told."""
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_rounded(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        short = float(f"{float(value):.{DIGITS}g}")
        return int(short) if short.is_integer() else short
    return int(value) if isinstance(value, np.integer) else value
