"""The feature explorer's pages: for a dataset and model, what its SAE probe goes by, and why it decided as it did.

Everything is written into the page as plain words and small charts, feature by feature and example by example, so that
it can be read without a script and nothing of the data ever runs. Tokens on which a feature is silent are run together;
what is left is small. Words that come from data are shown, whatever they are.
"""

from collections.abc import Sequence
from typing import Any

from tessera.quoting import in_a_strip
from tessera.report import charts
from tessera.results import ARMS, Titles

Row = dict[str, Any]

# What of a task fills a page.
LARGE = ("features", "predictions", "pictures")
# In the place of a token that is a part of a character, which stands with the token that completes it.
PART = "\N{MIDDLE DOT}"
NEURONPEDIA = "https://www.neuronpedia.org/"
CONTEXT = 12
# So many labels, subsets or datasets have a bar each.
MOST = 16
NARROW = 140
MAIN_ARMS = ("sae", "hidden", "tfidf")


def task(record: Row, titles: Titles) -> Row:
    """One file of results/explorer/, as what the page's template lays out."""
    about = record["task"]
    dataset, model = about["dataset"], about["model"]
    listed = {feature["feature"] for feature in record["features"]}
    called = titles.get("datasets", {})
    found: Row = {
        "id": f"explore.{model}.{dataset}",
        "dataset": called.get(dataset, dataset),
        "dataset_id": dataset,
        "model": titles.get("models", {}).get(model, model),
        "image": about["kind"] == "image",
        "labels": about["labels"],
        "subsets": about["subsets"],
        "called": called,
        "examples": f"{about['n_examples']:,}",
        "failed": record["failed"],
        "top": record["top"],
        "probe": _probe(record["probe"]) if record["probe"] else None,
        "listed": listed,
    }
    found |= {"n_features": len(record["features"]), "n_predictions": len(record["predictions"])}
    found["pictures"] = _pictures(record["images"], found["id"])
    found["features"] = [_feature(feature, place, found) for place, feature in enumerate(record["features"], 1)]
    found["predictions"] = [
        _prediction(prediction, place, found) for place, prediction in enumerate(record["predictions"], 1)
    ]
    return found


def _pictures(images: dict[str, str], task: str) -> dict[str, Row]:
    """The images of examples, each to be in the page once under a key; what is not one is left out."""
    return {
        example: {"key": f"{task}/picture-{place}", "data": data}
        for place, (example, data) in enumerate(images.items())
        if data.startswith("data:image/")
    }


def _probe(probe: Row) -> Row:
    threshold = probe["threshold"]
    values = "values kept" if threshold is None else f"binary at {threshold:g}"
    score = _number(probe["macro_f1"], 3)
    if probe["low"] is not None and probe["high"] is not None:
        score += f" ({probe['low']:.3f} to {probe['high']:.3f})"
    return {
        "sae": probe["sae"],
        "layer": probe["layer"],
        "width": f"{probe['width']:,}",
        "setting": f"{probe['pooling']}, {values}",
        "score": score,
        "seeds": probe["n_seeds"],
        "scored": probe["scored"],
        "other_seeds": probe["other_seeds"],
    }


# --- features ------------------------------------------------------------------------------------------------------


def _bounds(feature: Row) -> list[float]:
    return [value for _, mean, low, high in feature["weights"] for value in (mean, low, high) if value is not None]


def _feature(feature: Row, place: int, task: Row) -> Row:
    labels, rates = task["labels"], feature["rates"]
    scale = charts.around_zero(_bounds(feature), NARROW)
    weights = [_weight(weight, labels, scale) for weight in feature["weights"]]
    main = max(weights, key=lambda weight: abs(weight["mean"]), default=None)
    examples = [_example(example, feature["largest"], task) for example in feature["examples"]]
    highest = max(rates["label"], default=0) or 1.0
    link = feature["link"]
    return {
        "id": f"{task['id']}/feature/{feature['feature']}",
        "number": feature["feature"],
        "place": place,
        "strength": _number(feature["strength"], 3),
        "order": feature["strength"],
        "weights": sorted(weights, key=lambda weight: -abs(weight["mean"])),
        "main": main,
        "stability": f"{feature['stability']:.0%}",
        "same_sign": f"{feature['same_sign']:.0%}",
        "stable": feature["stability"] >= 1,
        "largest": _short(feature["largest"]),
        "rates": {
            "label": _rates(labels, rates["label"]),
            "subset": _rates(task["subsets"], rates["subset"]),
            "dataset": _rates(
                [task["called"].get(name, name) for name, _ in rates["dataset"]],
                [share for _, share in rates["dataset"]],
            ),
        },
        "columns": charts.bars(rates["label"], highest),
        "fires": _fires(labels, rates["label"]),
        "neighbours": [
            {"number": number, "cosine": _number(cosine, 2), "listed": f"{task['id']}/feature/{number}"}
            for number, cosine in feature["neighbours"]
        ],
        "link": link if link and link.startswith(NEURONPEDIA) else None,
        "examples": examples,
        "snippet": _snippet(feature, examples),
    }


def _weight(weight: Sequence[Any], labels: Sequence[str], scale: charts.Scale) -> Row:
    label, mean, low, high = weight
    known = low is not None and high is not None
    return {
        "label": labels[label],
        "mean": mean,
        "value": _signed(mean),
        "interval": f"{_signed(low)} to {_signed(high)}" if known else "",
        "strip": charts.interval(scale, mean, low, high, zero=True),
    }


def _rates(names: Sequence[str], shares: Sequence[float]) -> list[Row]:
    """A bar for each share; of very many the largest, and one for the largest of the others."""
    found = [
        {"name": name, "amount": _percent(share), "bar": charts.bar(share)}
        for name, share in zip(names, shares, strict=True)
    ]
    if len(found) <= MOST:
        return found
    order = sorted(range(len(found)), key=lambda place: -shares[place])
    rest = shares[order[MOST - 1]]
    others = {"name": f"{len(found) - MOST + 1} others, at most", "amount": _percent(rest), "bar": charts.bar(rest)}
    return [*(found[place] for place in order[: MOST - 1]), others]


def _fires(labels: Sequence[str], shares: Sequence[float]) -> str:
    """The label in whose examples a feature is active most often, in words."""
    if not shares or max(shares) <= 0:
        return "never active"
    best = max(range(len(shares)), key=lambda place: shares[place])
    return f"{_percent(shares[best])} of {labels[best]}"


def _example(example: Row, largest: float, task: Row) -> Row:
    found = {
        "name": example["example"],
        "label": task["labels"][example["label"]],
        "subset": example["subset"],
        "value": _short(example["value"]),
    }
    if "tokens" in example:
        tokens, values = example["tokens"], example["values"]
        top = max(range(len(values)), key=lambda place: values[place], default=None)
        return found | {
            "pieces": pieces(tokens, values, largest),
            "before": example["start"] > 0,
            "after": example["cut"],
            "top": top,
            "strongest": "" if top is None else f"\u201c{in_a_strip(tokens[top]).strip()}\u201d {_short(values[top])}",
        }
    return found | _picture(example, task) | _patches(example["grid"], example["values"], largest)


def pieces(tokens: Sequence[str], values: Sequence[float], largest: float) -> list[Row]:
    """A text as stretches: a token for itself where the feature is active, and what lies between as one.

    The space that a token begins with stands before it, so that marked words do not run into their neighbours.
    """
    found: list[Row] = []
    for token, value in zip(tokens, values, strict=True):
        heat, shown = charts.level(value, largest), in_a_strip(token)
        word = shown.lstrip(" ")
        if heat and word:
            _plain(found, shown[: len(shown) - len(word)])
            found.append({"text": word, "heat": heat, "value": _short(value)})
        elif heat:
            found.append({"text": shown or PART, "heat": heat, "value": _short(value)})
        else:
            _plain(found, shown)
    return found


def _plain(found: list[Row], text: str) -> None:
    if text and found and not found[-1]["heat"]:
        found[-1]["text"] += text
    elif text:
        found.append({"text": text, "heat": 0, "value": ""})


def _snippet(feature: Row, examples: list[Row]) -> list[Row]:
    """A few words around the strongest token of the strongest example, for the list of features."""
    if not examples or examples[0].get("top") is None:
        return []
    example, top = feature["examples"][0], examples[0]["top"]
    first, last = max(0, top - CONTEXT // 2), top + CONTEXT // 2
    tokens = example["tokens"][first:last]
    return pieces([tokens[0].lstrip(" "), *tokens[1:]], example["values"][first:last], feature["largest"])


def _picture(example: Row, task: Row) -> Row:
    """The key of an example's image, if there is one."""
    return {"picture": task["pictures"].get(example["example"], {}).get("key")}


def _patches(grid: Sequence[int], values: Sequence[float], largest: float) -> Row:
    """The patches of each heat as one outline on the grid, with the values that it stands for."""
    rows, columns = grid
    hot: dict[int, list[int]] = {}
    for place, value in enumerate(values):
        if heat := charts.level(value, largest):
            hot.setdefault(heat, []).append(place)
    top = max(range(len(values)), key=lambda place: values[place], default=None)
    told = "" if top is None else f"row {top // columns + 1}, column {top % columns + 1}: {_short(values[top])}"
    return {
        "rows": rows,
        "columns": columns,
        "patches": [
            {
                "heat": heat,
                "outline": "".join(f"M{place % columns} {place // columns}h1v1h-1z" for place in places),
                "values": _span([values[place] for place in places]),
            }
            for heat, places in sorted(hot.items())
        ],
        "strongest": told,
    }


def _span(values: Sequence[float]) -> str:
    low, high = _short(min(values)), _short(max(values))
    return low if low == high else f"{low} to {high}"


# --- predictions ---------------------------------------------------------------------------------------------------


def _prediction(prediction: Row, place: int, task: Row) -> Row:
    labels, right = task["labels"], prediction["label"]
    verdicts = prediction["verdicts"]
    given, against = verdicts["sae"][0], prediction["against"]
    parts = prediction["contributions"]
    others = [("Intercept: no feature is active", prediction["intercept"]), ("All other features", prediction["rest"])]
    scale = charts.around_zero([*(part[2] for part in parts), *(value for _, value in others)], NARROW)
    answers = {verdict[0] for verdict in verdicts.values()}
    return {
        "id": f"{task['id']}/example/{place}",
        "place": place,
        "name": prediction["example"],
        "text": prediction.get("text"),
        **_picture(prediction, task),
        "label": labels[right],
        "subset": prediction["subset"],
        "given": labels[given],
        "against": labels[against],
        "right": given == right,
        "agree": len(answers) == 1,
        "verdicts": [_verdict(arm, verdicts[arm], labels, right) for arm in MAIN_ARMS if arm in verdicts],
        "contributions": [
            {
                "number": number,
                "listed": f"{task['id']}/feature/{number}" if number in task["listed"] else None,
                "value": _short(value),
                "contribution": _signed(contribution),
                "push": charts.push(scale, contribution),
            }
            for number, value, contribution in parts
        ],
        "others": [
            {"name": name, "contribution": _signed(value), "push": charts.push(scale, value)} for name, value in others
        ],
        "margin": _signed(sum(part[2] for part in parts) + prediction["intercept"] + prediction["rest"]),
    }


def _verdict(arm: str, verdict: Sequence[Any], labels: Sequence[str], right: int) -> Row:
    label, probability = verdict
    return {
        "arm": ARMS[arm],
        "label": labels[label],
        "probability": "" if probability is None else _percent(probability),
        "right": label == right,
    }


# --- numbers -------------------------------------------------------------------------------------------------------


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _short(value: float) -> str:
    """A value of a feature, to three digits that count."""
    return _number(value, 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0)


def _signed(value: float) -> str:
    """Three digits after the point, and a sign unless nothing is left."""
    text = f"{abs(value):.3f}" if abs(value) < 100 else f"{abs(value):,.0f}"
    sign = "" if float(text.replace(",", "")) == 0 else "+" if value > 0 else "\N{MINUS SIGN}"
    return sign + text


def _percent(share: float) -> str:
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"
