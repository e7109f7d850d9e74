"""HTML for notebooks and pages: the one place where text is escaped."""

import html
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def text(value: Any) -> str:
    """A value as it reads, whatever it holds.

    Example:
        >>> text("mynet:<lambda>")
        'mynet:&lt;lambda&gt;'
    """
    return html.escape(str(value))


def paragraph(value: Any) -> str:
    """A paragraph."""
    return f"<p>{text(value)}</p>"


def preformatted(value: Any) -> str:
    """Lines that keep their breaks."""
    return f"<pre>{text(value)}</pre>"


def bullets(values: Iterable[Any]) -> str:
    """A list, one point a value."""
    return f"<ul>{''.join(f'<li>{text(value)}</li>' for value in values)}</ul>"


def table(rows: Mapping[str, Any], caption: Any) -> str:
    """Two columns, names and values, under a caption."""
    cells = "".join(f"<tr><td>{text(name)}</td><td>{text(value)}</td></tr>" for name, value in rows.items())
    return f"<table><caption>{text(caption)}</caption>{cells}</table>"


def frame(values: "pd.DataFrame", digits: int) -> str:
    """A pandas frame, its numbers with so many digits and nothing where one is missing."""
    return values.to_html(index=False, float_format=f"{{:.{digits}g}}".format, na_rep="", escape=True)
