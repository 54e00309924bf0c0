"""An SAE brought from a release, a folder or the demo world into results/saes/.

Whatever it comes from, it goes through sae-lens once, which knows every release's format, and is kept as sae-lens saves
for inference; the demo world's are trained by sae-lens and so saved. The capture engine reads that without sae-lens, whose import takes seconds. Whether the SAE fits its model
is settled here, before anything is run.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tessera import controls
from tessera.downloads import cached
from tessera.errors import UserError
from tessera.files import naming, read_json, write_json
from tessera.hub import hub_trouble
from tessera.saes import CONFIG, WEIGHTS, Sae
from tessera.snapshots import allowed, bring, emptied, opening, require_whole, write_record


def store(
    name: str, entry: dict[str, Any], folder: Path, given: Path | None, model_record: Path, seed: int | None = None
) -> None:
    """Bring an SAE into `folder`, and check it against its config entry and its model's record. `seed` is that of a control."""
    key, source, commit = f"saes.{name}", entry["source"], None
    if "control" in source:
        assert given is not None  # noqa: S101 - the rule gives it the SAE to match
        require_whole(given)
        controls.write(given, folder, seed)
    elif "borrowed" in source:
        assert given is not None  # noqa: S101 - the rule gives it the SAE to borrow
        require_whole(given)
        bring(given, folder, (CONFIG, WEIGHTS))
    elif "demo" in source:
        assert given is not None  # noqa: S101 - the rule gives it what the demo has trained
        # Saved by sae-lens a moment ago; it would write the same bytes again.
        bring(given, folder, (CONFIG, WEIGHTS))
    else:
        commit = _bring(key, source, folder, given)
    _check(folder, key, entry, read_json(model_record))
    raw = read_json(folder / CONFIG)
    shapes = {name: raw[name] for name in ("architecture", "d_in", "d_sae")}
    # What was measured of another SAE, or on another model, is not said of this one.
    write_record(
        folder,
        source,
        None if "control" in source or "borrowed" in source else given,
        {**shapes, "layer": entry["layer"], **({"commit": commit} if commit else {})},
    )


def _bring(key: str, source: dict[str, Any], folder: Path, given: Path | None) -> str | None:
    """Through sae-lens, whose import takes seconds, into the form it saves for inference; returns the commit of a release."""
    from sae_lens import SAE  # noqa: PLC0415

    commit = None
    if given is None:
        release = source["release"]
        with hub_trouble(f"{key}.source", release), _checked_files(source.get("revision")) as fetched:
            sae = SAE.from_pretrained(release, source["id"], device="cpu", dtype="float32")
        commits = {found[1] for path in fetched if (found := re.search(r"/snapshots/([0-9a-f]{40})/", path))}
        commit = commits.pop() if len(commits) == 1 else None
    else:
        there = {path.name for path in allowed(given, (CONFIG, WEIGHTS))}
        for needed in (CONFIG, WEIGHTS):
            if needed not in there:
                wrong = f"'{given}' has no {needed}"
                raise UserError(f"{key}.source.folder", wrong, "give a folder that sae-lens saved")
        with opening(f"{key}.source.folder", f"the SAE in '{given}'", "save it again with sae-lens"):
            sae = SAE.load_from_disk(given, device="cpu", dtype="float32")
    with naming(folder / WEIGHTS):
        sae.save_model(emptied(folder))
    # sae-lens writes the keys in an order that changes from run to run, and the file's hash is part of an identity.
    write_json(folder / CONFIG, read_json(folder / CONFIG))
    return commit


@contextmanager
def _checked_files(revision: str | None) -> Iterator[list[str]]:
    """While sae-lens reads a release, have its files fetched at a commit and held against their hashes; yields their paths.

    It asks the Hub's client for the newest of each file and has no word for another.
    """
    from sae_lens.loading import pretrained_sae_loaders  # noqa: PLC0415

    fetched: list[str] = []

    def fetch(repo_id: str, filename: str, **options: Any) -> str:
        fetched.append(cached(repo_id, filename, **{**options, "revision": revision}))
        return fetched[-1]

    theirs = pretrained_sae_loaders.hf_hub_download
    pretrained_sae_loaders.hf_hub_download = fetch
    try:
        yield fetched
    finally:
        pretrained_sae_loaders.hf_hub_download = theirs


def _check(folder: Path, key: str, entry: dict[str, Any], model: dict[str, Any]) -> None:
    sae = Sae(folder, key)
    sae.check_finite(str(folder / WEIGHTS))
    config = sae.config
    for what in ("layer", "site"):
        reads, said = getattr(config, what), entry[what]
        if reads != said:
            raise UserError(f"{key}.{what}", f"the SAE reads {what} {reads}, not {said}", f"correct the {what}")
    if config.d_sae != entry["width"]:
        raise UserError(
            f"{key}.width", f"the SAE has {config.d_sae} features, not {entry['width']}", "correct the width"
        )
    if config.layer >= model["layers"]:
        wrong = f"layer {config.layer} is beyond the {model['layers']} layers of '{entry['model']}'"
        raise UserError(f"{key}.layer", wrong, "choose an SAE and a model that fit together")
    size = model["attention_size" if config.site == "attn_z" else "hidden_size"]
    if config.d_in != size:
        wrong = f"the SAE reads vectors of {config.d_in}, and '{entry['model']}' has {size} at {config.site}"
        raise UserError(f"{key}.model", wrong, "choose the model it was trained on")
