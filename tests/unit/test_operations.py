"""What an operator is told: each alert watches metrics that there are, and leads to the row that says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from consumer.telemetry.metrics import Metrics
from consumer.threads.retrying import Breakers

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
PARTS = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
TARGETS = {"instance", "job"}
"""Labels that Prometheus adds."""

by_name = pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))


def labels_by_metric() -> dict[str, set[str]]:
    return {doc.name + part: set(doc.labels) for doc in Metrics().vocabulary for part in PARTS[doc.kind]}


@by_name
def test_an_alert_speaks_of_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    known, expression = labels_by_metric(), rule["expr"]
    names = re.findall(r"\bml_worker_\w+", expression)
    assert names
    assert set(names) <= known.keys()
    of_these = set.union(*(known[name] for name in names))
    selected = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")}
    shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert selected | grouped <= of_these | TARGETS
    assert shown <= grouped, "a label that the aggregation drops is empty"


@by_name
def test_a_counter_whose_increase_is_watched_is_there_before_it_first_counts(rule: dict[str, Any]) -> None:
    """From nothing to one is no increase to Prometheus."""
    metrics = Metrics()
    Breakers(metrics, services=["kafka"])
    scraped = generate_latest(metrics.registry).decode()
    for name, selector in re.findall(r"(?:increase|rate)\((ml_worker_\w+)(?:\{(.*?)\})?\[", rule["expr"]):
        samples = [line for line in scraped.splitlines() if re.match(rf"{name}[ {{]", line)]
        assert samples, name
        for label, value in re.findall(r"(\w+)=\"([^\"]*)\"", selector):
            assert any(f'{label}="{value}"' in sample for sample in samples), (name, label, value)


@by_name
def test_an_alert_says_what_it_means_and_where_to_read_on(rule: dict[str, Any]) -> None:
    annotations = rule["annotations"]
    assert annotations["summary"].endswith(".")
    assert annotations["description"].endswith(".")
    assert rule["labels"]["severity"] in ("warning", "critical")
    page, _, anchor = annotations["runbook"].partition("#")
    assert page == "docs/operations.md"
    (row,) = [line for line in PAGE.splitlines() if f'<a id="{anchor}"></a>' in line]
    assert f"`{rule['alert']}`" in row


def test_the_page_names_no_alert_metric_or_setting_that_there_is_not() -> None:
    faults = PAGE.partition("## Faults")[2].partition("\n## ")[0]
    rows = [line for line in faults.splitlines() if line.startswith("| <a id=")]
    assert len(rows) > 25
    assert all(row.count(" | ") == 4 for row in rows)
    anchors = re.findall(r'<a id="([\w-]+)"', faults)
    assert len(anchors) == len(set(anchors)) == len(rows)
    named = {name for row in rows for name in re.findall(r"`([A-Z]\w+)`", row.split(" | ")[3])}
    assert named == {rule["alert"] for rule in RULES}
    known = {doc.name.removeprefix("ml_worker_") for doc in Metrics().vocabulary}
    words = {
        word for row in rows for word in re.findall(r"`(\w+_(?:total|seconds|requests|open|jobs|announcements))\b", row)
    }
    assert words <= known, words - known


def test_every_log_line_that_the_page_names_is_written_somewhere() -> None:
    source = "\n".join(path.read_text() for top in ("consumer", "pipeline") for path in (ROOT / top).rglob("*.py"))
    faults = PAGE.partition("## Faults")[2].partition("\n## ")[0]
    lines = [
        line
        for named in re.findall(r"log ((?:`[^`]+`(?: / |, )?)+)", faults)
        for line in re.findall(r"`([^`]+)`", named)
    ]
    assert len(lines) > 15
    for line in lines:
        assert line.partition(" …")[0] in source, line
