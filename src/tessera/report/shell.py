"""What surrounds every page: its style and script inside the file, and a policy that lets nothing else run or load.

The browser is told the digest of the one style and the one script, which are this package's own, so that neither markup
in a dataset nor an attribute could run or style anything, and nothing is fetched. Whatever a template prints is escaped,
and characters that would act on the page are shown.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tessera.quoting import on_a_page

HERE = Path(__file__).parent


def environment() -> jinja2.Environment:
    """The templates, with the style, the script and the policy at hand."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    style, script = own("page.css"), own("page.js")
    found.globals |= {"style": style, "script": script, "policy": policy(style, script)}
    return found


def own(name: str) -> Markup:
    """A file of this package, to stand in the page as it is."""
    text = (HERE / name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 - the package's own style or script, with nothing of a user's in it


def policy(style: str, script: str) -> str:
    """Images that are in the page, this style, this script; no requests, no frames, no forms, no other base."""
    return (
        f"default-src 'none'; img-src data:; style-src '{digest(style)}'; script-src '{digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _shown(value: Any) -> Any:
    return on_a_page(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
