"""Quotas: what a project may take, in words and figures."""

from __future__ import annotations

import pytest

from consumer.settings import SettingsError, load_settings
from pipeline.registry import Usage
from pipeline.registry.quotas import Quota, Quotas


def quotas(text: str) -> Quotas:
    return Quotas.of(load_settings({"PROJECT_QUOTAS": text}, None, needs=()).project_quotas)


def test_a_project_has_its_own_figures_and_else_those_of_every_project() -> None:
    given = quotas('{"*": {"models": 1000, "bytes": "10GB", "trainings": 4}, "risk": {"models": null, "trainings": 2}}')
    assert given.quota("other") == Quota(1000, 10_000_000_000, 4)
    assert given.quota("risk") == Quota(None, 10_000_000_000, 2)
    assert (given.trainings("risk"), given.trainings("other")) == (2, 4)


def test_without_quotas_nothing_is_limited_and_nobody_is_asked() -> None:
    given = Quotas.of(load_settings({}, None, needs=()).project_quotas)
    assert given.quota("any") == Quota()
    assert given.trainings("any") is None
    assert not given.limits_storage("any")
    only_trainings = quotas('{"risk": {"trainings": 1}}')
    assert not only_trainings.limits_storage("risk")
    assert only_trainings.quota("other") == Quota()
    assert quotas('{"risk": {"bytes": 1}}').limits_storage("risk")


def test_a_full_project_is_told_its_figures_and_what_to_do() -> None:
    quota = Quota(models=100, bytes=10_000)
    assert quota.excess("risk", Usage(99, 9_999)) == ""
    assert quota.excess("risk", Usage(100, 5)) == (
        "project risk has 100 of 100 models; archive some (`tensorfleet models archive NAME@v1`), "
        "or ask for more (PROJECT_QUOTAS)"
    )
    both = quota.excess("risk", Usage(120, 10_000))
    assert both.startswith("project risk has 120 of 100 models and 10,000 of 10,000 bytes of model files; ")
    assert Quota(models=0).excess("risk", Usage(0, 0)).startswith("project risk has 0 of 0 models; ")


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        '{"*": 5}',
        '{"*": {"models": -1}}',
        '{"*": {"gpus": 1}}',
        '{"a b": {"models": 1}}',
        '{"a": {"trainings": 0}}',
        '{"a": {"bytes": "much"}}',
    ],
)
def test_what_is_no_quota_is_told_with_one_that_is(text: str) -> None:
    with pytest.raises(SettingsError, match=r'^PROJECT_QUOTAS takes JSON such as \{"\*": \{"models": 1000'):
        quotas(text)
