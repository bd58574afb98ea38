"""The templates of everything that is written as HTML: strings from data, plugins and files are escaped."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jinja2


@functools.cache
def templates() -> jinja2.Environment:
    """Those in ``templates/``."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("fpmtools.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(name: str, values: Mapping[str, Any]) -> str:
    """The template of that name with these values."""
    return templates().get_template(name).render(values)
