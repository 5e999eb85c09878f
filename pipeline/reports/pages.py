"""Building blocks of pages for people: self-contained HTML, and Markdown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from pipeline.reports.charts import Chart

FIRST = (
    *("accuracy", "balanced_accuracy", "f1", "f1_macro", "precision", "recall", "roc_auc", "log_loss"),
    *("brier", "calibration_error"),
    *("r2", "rmse", "mae"),
)
MOST_ROWS = 50
LONGEST_WORD = 20


def document(title: str, subtitle: str, sections: Sequence[str]) -> str:
    """A whole page; titles are text, sections are HTML."""
    title, subtitle = escape(title), escape(subtitle)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>'
        f"<body><header><h1>{title}</h1><p>{subtitle}</p></header><main>{''.join(sections)}</main></body></html>\n"
    )


def tiles(metrics: Mapping[str, float]) -> str:
    """The six metrics that people look at first."""
    first = [(name, value) for name, value in ordered(metrics) if name in FIRST][:6]
    return (
        f'<ul class="tiles">{"".join(f"<li><b>{number(value)}</b>{escape(name)}</li>" for name, value in first)}</ul>'
    )


def warning(title: str, lines: Sequence[str], *, calm: bool = False) -> str:
    """A section with these lines, empty without lines; `calm` if they are no reason to worry."""
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section class="{"wide" if calm else "warn"}"><h2>{escape(title)}</h2><ul>{items}</ul></section>'


def side_by_side(tables: Sequence[str]) -> str:
    """Tables of different heights, in as many columns as the page has room for."""
    return f'<div class="tables">{"".join(tables)}</div>'


def figure(place: int, chart: Chart, title: str | None = None) -> str:
    """A chart as HTML.  Its ids get a prefix, since several pictures in one page must not share ids."""
    mark = f"c{place}" + hashlib.sha256(chart.title.encode()).hexdigest()[:4]
    svg = chart.svg.replace('id="', f'id="{mark}').replace("url(#", f"url(#{mark}").replace('href="#', f'href="#{mark}')
    heading = escape(chart.title if title is None else title)
    return f"<figure><h2>{heading}</h2>{svg}<figcaption>{escape(chart.says)}</figcaption></figure>"


def row_of(title: str, figures: Sequence[str]) -> str:
    """Pictures of the same kind side by side, where there is room."""
    return f'<section class="wide"><h2>{escape(title)}</h2><div class="row">{"".join(figures)}</div></section>'


def table(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    says: str = "",
    wide: bool = False,
    marks: Mapping[tuple[int, int], str] | None = None,
) -> str:
    """A table, empty without rows.  `marks` gives cells, by row and column, a CSS class; `wide` spans the page."""
    if not rows:
        return ""
    cells = "".join(
        "<tr>"
        + "".join(_cell(column, cell, (marks or {}).get((row, column))) for column, cell in enumerate(line))
        + "</tr>"
        for row, line in enumerate(rows[:MOST_ROWS])
    )
    more = f"<p>{len(rows) - MOST_ROWS:,} more.</p>" if len(rows) > MOST_ROWS else ""
    more += f"<p>{escape(says)}</p>" if says else ""
    head = "".join(f"<th>{_breakable(name)}</th>" for name in heads)
    shape = ' class="wide"' if wide else ""
    return f"<section{shape}><h2>{escape(title)}</h2><div><table><tr>{head}</tr>{cells}</table></div>{more}</section>"


def markdown(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]], *, says: str = "") -> Iterator[str]:
    """The lines of a table with its heading; nothing without rows."""
    if not rows:
        return
    yield from (f"## {title}", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads))
    for row in rows[:MOST_ROWS]:
        yield "| " + " | ".join(plain(cell).replace("|", "\\|") for cell in row) + " |"
    yield ""
    if says:
        yield from (plain(says), "")


def code(title: str, programs: Mapping[str, str]) -> str:
    """A section with programs, each below what it needs."""
    parts = "".join(f"<p>{escape(says)}:</p><pre>{escape(program)}</pre>" for says, program in programs.items())
    return f'<section class="wide"><h2>{escape(title)}</h2>{parts}</section>'


def markdown_code(title: str, programs: Mapping[str, str]) -> Iterator[str]:
    """The lines of such a section."""
    yield from (f"## {title}", "")
    for says, program in programs.items():
        yield from (f"{says}:", "", "```python", *program.splitlines(), "```", "")


def plain(value: object) -> str:
    """One line without markup, since Markdown may contain HTML."""
    return escape(str(value), quote=False).replace("\n", " ")


def number(value: float) -> str:
    return f"{value:.4g}"


def ordered(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name, metrics[name]) for name in in_order(metrics)]


def in_order(names: Iterable[str]) -> list[str]:
    """Names of metrics: those that people look at first, then the others by name."""
    place = {name: at for at, name in enumerate(FIRST)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def _cell(column: int, value: object, kind: str | None) -> str:
    """A cell.  Long words may break anywhere, so that the table stays narrow; first-column names break after `_`."""
    text = str(value)
    kinds = [kind or "", "long" if any(len(word) > LONGEST_WORD for word in text.split()) else ""]
    shape = f' class="{" ".join(filter(None, kinds))}"' if any(kinds) else ""
    return f"<td{shape}>{escape(text) if column else _breakable(text)}</td>"


def _breakable(name: str) -> str:
    return escape(name).replace("_", "_<wbr/>").replace("@", "<wbr/>@")


_CSS = """
:root{color-scheme:light}*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,sans-serif;color:#22303c;background:#f4f6f8}
header{background:#22303c;color:#fff;padding:1.4rem max(1rem,calc(50vw - 36rem))}
h1{margin:0;font-size:1.5rem;overflow-wrap:anywhere}header p{margin:.2rem 0 0;color:#c7d0d8;overflow-wrap:anywhere}
main{max-width:74rem;margin:0 auto;padding:1rem;display:grid;gap:1rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr))}
.tiles{grid-column:1/-1;list-style:none;margin:0;padding:0;display:grid;gap:.7rem;
grid-template-columns:repeat(auto-fit,minmax(8rem,1fr))}
.tiles li,section,figure{background:#fff;border:1px solid #dfe5ea;border-radius:8px;padding:1rem;margin:0;min-width:0}
.tiles b{display:block;font-size:1.5rem}.warn{grid-column:1/-1;border-color:#edae49;background:#fff8ea}
.wide{grid-column:1/-1}.tables{grid-column:1/-1;columns:21rem;column-gap:1rem}
.tables section{break-inside:avoid;margin:0 0 1rem}
h2{margin:0 0 .6rem;font-size:1.02rem;overflow-wrap:anywhere}figure svg{width:100%;height:auto;display:block}
figure svg text{font-family:"DejaVu Sans",Verdana,system-ui,sans-serif!important}
figcaption,section p{color:#5a6874;font-size:.88rem;margin:.4rem 0 0}section div{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{text-align:left;padding:.25rem .6rem .25rem .3rem;border-bottom:1px solid #edf0f3;vertical-align:top}
.long{overflow-wrap:anywhere;min-width:7rem}
th{color:#5a6874;font-weight:600}
ul{margin:0;padding-left:1.2rem}
pre{margin:.4rem 0 1rem;padding:.6rem .8rem;background:#f4f6f8;border-radius:6px;overflow-x:auto;font-size:.85rem}
.row{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr))}
.row figure{border:0;padding:0;max-width:34rem}.row h2{font-size:.92rem;color:#5a6874;margin:0 0 .3rem}
.differs{font-weight:600}
.better{color:#1b7a3d;font-weight:600}.worse{color:#b3261e;font-weight:600}.best{background:#e3f3e6;font-weight:600}
@media(max-width:30rem){main{padding:.6rem}.tiles li,section,figure{padding:.8rem}
th,td{padding:.25rem .35rem .25rem .15rem}}
"""
