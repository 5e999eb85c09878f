"""One contract for every store of aliases, and promotion on top of it: SQLite and MongoDB."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.aliases import AliasChange, AliasChangeReason, AliasStore
from pipeline.errors import NotFoundError, RejectedError
from pipeline.jobs import RegisteredModel
from pipeline.lifecycle.archiving import archive, restore
from pipeline.lifecycle.promotion import promote, remove, rollback
from pipeline.registry import Registry
from tests.contract.stores import ADAPTERS, AT, Place, place_for, registered

PROMOTED = AliasChangeReason.PROMOTED
KEY = ("default", "churn", "production")
SAME = {"split": "ef" * 32, "model_type": "classification"}


@pytest.fixture(params=ADAPTERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    place = place_for(request.param, request, tmp_path)
    with place.registry() as registry, place.aliases() as aliases:
        registry.prepare()
        aliases.prepare()
    return place


@pytest.fixture
def aliases(place: Place) -> Iterator[AliasStore]:
    with place.aliases() as aliases:
        yield aliases


@pytest.fixture
def registry(place: Place) -> Iterator[Registry]:
    with place.registry() as registry:
        yield registry


def change(sequence: int, version: int | None = 1, previous: int | None = None) -> AliasChange:
    return AliasChange(sequence, version, previous, PROMOTED, "ann", AT + timedelta(seconds=sequence))


def version(registry: Registry, accuracy: float, **model: Any) -> RegisteredModel:
    """The next version of churn."""
    request_id = f"r-{registry.count() + 1}"
    outcome = registered(request_id, metrics={"accuracy": accuracy, "log_loss": 1 - accuracy}, **{**SAME, **model})
    return registry.register([outcome])[request_id]


# The store


def test_an_alias_is_its_history(aliases: AliasStore) -> None:
    assert aliases.get(*KEY) is None
    assert aliases.change(*KEY, change(1)) is not None
    changed = aliases.change(*KEY, change(2, version=4, previous=1))
    assert changed is not None
    assert changed == aliases.get(*KEY)
    assert changed.history == (change(1), change(2, version=4, previous=1))
    assert (changed.version_number, changed.sequence) == (4, 2)


def test_a_change_that_is_not_the_next_one_is_refused(aliases: AliasStore) -> None:
    assert aliases.change(*KEY, change(2)) is None
    aliases.change(*KEY, change(1))
    assert aliases.change(*KEY, change(1, version=7)) is None
    assert aliases.change(*KEY, change(3)) is None
    found = aliases.get(*KEY)
    assert found is not None
    assert found.history == (change(1),)


def test_a_change_whose_answer_was_lost_is_not_made_twice(aliases: AliasStore) -> None:
    for one in (change(1), change(2, version=2)):
        first = aliases.change(*KEY, one)
        assert aliases.change(*KEY, one) == first


def test_what_is_announced_is_noted_and_what_came_since_is_not(aliases: AliasStore) -> None:
    first = aliases.change(*KEY, change(1))
    assert first is not None
    assert [one.unannounced for one in aliases.unannounced()] == [[change(1)]]
    aliases.change(*KEY, change(2))
    aliases.announced(first)
    assert [one.unannounced for one in aliases.unannounced()] == [[change(2)]]
    second = aliases.get(*KEY)
    assert second is not None
    aliases.announced(second)
    aliases.announced(first)
    assert aliases.unannounced() == []


def test_aliases_are_listed_by_project_and_model(aliases: AliasStore) -> None:
    for key in (("p", "b", "x"), ("p", "a", "y"), ("p", "a", "x"), ("q", "a", "x")):
        aliases.change(*key, change(1))
    assert [(a.project, a.model_name, a.alias) for a in aliases.list()] == [
        ("p", "a", "x"), ("p", "a", "y"), ("p", "b", "x"), ("q", "a", "x"),
    ]  # fmt: skip
    assert [a.alias for a in aliases.list(project="p", model_name="a")] == ["x", "y"]
    assert [a.project for a in aliases.list(project="q")] == ["q"]


# Promotion


def test_a_better_version_passes_the_gate_and_a_worse_one_does_not(registry: Registry, aliases: AliasStore) -> None:
    first, better, worse = (version(registry, accuracy) for accuracy in (0.9, 0.95, 0.94))
    assert promote(registry, aliases, first).version_number == 1, "the first one has nothing to beat"
    assert promote(registry, aliases, better, user="ann").version_number == 2
    with pytest.raises(RejectedError, match=r"v3 has accuracy 0.94 and v2 0.95: it is worse by 0.01, and may be by 0 "):
        promote(registry, aliases, worse)
    assert promote(registry, aliases, worse, tolerance=0.02).version_number == 3
    with pytest.raises(RejectedError, match=r"v1 has log_loss 0.1 and v3 0.06: it is worse by 0.04"):
        promote(registry, aliases, first, metric="log_loss")
    assert promote(registry, aliases, first, force=True).version_number == 1
    with pytest.raises(RejectedError, match="f1 was not measured of both versions; both have accuracy, log_loss"):
        promote(registry, aliases, better, metric="f1")
    with pytest.raises(RejectedError, match=r"what is compared takes one of accuracy, .*, not cv_accuracy_mean"):
        promote(registry, aliases, better, metric="cv_accuracy_mean")
    with pytest.raises(RejectedError, match="it is worse by"):
        promote(registry, aliases, worse, metric="log_loss", tolerance=float("nan"))


@pytest.mark.parametrize(
    ("other", "what"), [({"dataset_fingerprint": "00" * 32}, "dataset"), ({"split": "0"}, "split")]
)
def test_metrics_of_other_rows_are_not_compared(
    registry: Registry, aliases: AliasStore, other: dict[str, str], what: str
) -> None:
    promote(registry, aliases, version(registry, 0.5))
    elsewhere = version(registry, 0.9, **other)
    with pytest.raises(RejectedError, match=f"v2 cannot be compared with v1: it was tested on another {what}"):
        promote(registry, aliases, elsewhere)
    assert promote(registry, aliases, elsewhere, force=True).version_number == 2


def test_promoting_what_holds_changes_nothing(registry: Registry, aliases: AliasStore) -> None:
    only = version(registry, 0.9)
    assert promote(registry, aliases, only) == promote(registry, aliases, only)
    assert len(aliases.list()[0].history) == 1


def test_a_rollback_goes_to_the_one_before_or_to_the_one_named(registry: Registry, aliases: AliasStore) -> None:
    for accuracy in (0.7, 0.8, 0.9):
        promote(registry, aliases, version(registry, accuracy))
    assert rollback(registry, aliases, "default", "churn").version_number == 2
    assert rollback(registry, aliases, "default", "churn").version_number == 3, "back again"
    assert rollback(registry, aliases, "default", "churn", version_number=1).version_number == 1
    with pytest.raises(NotFoundError, match="has no version v9"):
        rollback(registry, aliases, "default", "churn", version_number=9)
    with pytest.raises(NotFoundError, match="default/churn has no alias staging"):
        rollback(registry, aliases, "default", "churn", alias="staging")


def test_a_removed_alias_points_nowhere_and_can_be_given_again(registry: Registry, aliases: AliasStore) -> None:
    only = version(registry, 0.9)
    promote(registry, aliases, only)
    assert remove(aliases, *KEY).version_number is None
    assert promote(registry, aliases, only).version_number == 1
    assert [one.reason for one in aliases.list()[0].history] == ["PROMOTED", "REMOVED", "PROMOTED"]


@pytest.mark.parametrize("alias", ["", "v3", "a/b", "x" * 129])
def test_an_alias_with_a_bad_name_is_rejected(registry: Registry, aliases: AliasStore, alias: str) -> None:
    with pytest.raises(RejectedError, match="an alias takes 1 to 128 characters"):
        promote(registry, aliases, version(registry, 0.9), alias=alias)


# Archiving


class Interrupted:
    """A store in whose place somebody else acts once, before this method or after it."""

    def __init__(self, store: Any, method: str, act: Callable[[], object], *, after: bool) -> None:
        self._store, self._method, self._act, self._after = store, method, act, after

    def __getattr__(self, name: str) -> Any:
        called = getattr(self._store, name)
        if name != self._method:
            return called

        def interrupted(*args: Any, **kwargs: Any) -> Any:
            self._method = ""
            answer = called(*args, **kwargs) if self._after else None
            self._act()
            return answer if self._after else called(*args, **kwargs)

        return interrupted


def test_a_version_that_an_alias_points_to_is_not_archived(registry: Registry, aliases: AliasStore) -> None:
    first, second = version(registry, 0.8), version(registry, 0.9)
    for alias in ("production", "canary"):
        promote(registry, aliases, second, alias=alias)
    with pytest.raises(RejectedError, match="default/churn v2 is not archived: canary, production points to it"):
        archive(registry, aliases, "default", "churn", 2)
    assert archive(registry, aliases, "default", "churn", 1).archived_at is not None
    calls: list[Callable[[], object]] = [
        lambda: promote(registry, aliases, first, force=True),
        lambda: rollback(registry, aliases, "default", "churn", version_number=1),
    ]
    for call in calls:
        with pytest.raises(RejectedError, match=r"v1 is archived; take it out first: .* default/churn@v1 --undo"):
            call()
    assert restore(registry, "default", "churn", 1).archived_at is None
    assert promote(registry, aliases, first, force=True).version_number == 1
    with pytest.raises(RejectedError, match="v2 is not archived: canary points to it"):
        archive(registry, aliases, "default", "churn", 2)


def test_an_alias_of_another_model_or_project_holds_no_version(registry: Registry, aliases: AliasStore) -> None:
    version(registry, 0.8)
    for names in (("p", "churn"), ("default", "other")):
        promote(
            registry, aliases, registry.register([registered("/".join(names), names[1], names[0])])["/".join(names)]
        )
    assert archive(registry, aliases, "default", "churn", 1).archived_at is not None


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["list", "archive"])
def test_a_promotion_in_the_middle_of_archiving_wins(
    registry: Registry, aliases: AliasStore, method: str, after: bool
) -> None:
    only = version(registry, 0.9)
    acting: list[Exception] = []

    def act() -> None:
        try:
            promote(registry, aliases, only)
        except RejectedError as error:
            acting.append(error)

    kind = {"list": aliases, "archive": registry}[method]
    store: Any = Interrupted(kind, method, act, after=after)
    versions, pointers = (store, aliases) if method == "archive" else (registry, store)
    try:
        archive(versions, pointers, "default", "churn", 1)
        archived = True
    except RejectedError:
        archived = False
    assert archived == bool(acting), "exactly one of the two was refused"
    held = aliases.get(*KEY)
    assert (held is None) == archived
    assert (registry.get("default", "churn", 1).archived_at is None) == (not archived)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["change", "get"])
def test_archiving_in_the_middle_of_a_promotion_leaves_no_alias_on_an_archived_version(
    registry: Registry, aliases: AliasStore, method: str, after: bool
) -> None:
    only = version(registry, 0.9)
    refused: list[Exception] = []

    def act() -> None:
        try:
            archive(registry, aliases, "default", "churn", 1)
        except RejectedError as error:
            refused.append(error)

    store: Any = Interrupted(aliases, method, act, after=after)
    try:
        promote(registry, store, only)
    except RejectedError:
        assert not refused
    held = aliases.get(*KEY)
    pointed = held is not None and held.version_number == 1
    assert pointed == (registry.get("default", "churn", 1).archived_at is None)


def test_archiving_and_promoting_at_once_end_with_one_of_the_two(place: Place) -> None:
    with place.registry() as registry, place.aliases() as aliases:
        only = version(registry, 0.9)
        together = threading.Barrier(2)

        def archives() -> None:
            with place.registry() as registry, place.aliases() as aliases, suppress(RejectedError):
                together.wait()
                archive(registry, aliases, "default", "churn", 1)

        def promotes() -> None:
            with place.registry() as registry, place.aliases() as aliases, suppress(RejectedError):
                together.wait()
                promote(registry, aliases, only)

        with ThreadPoolExecutor(2) as threads:
            for _ in range(15):
                for future in [threads.submit(archives), threads.submit(promotes)]:
                    future.result()
                held = aliases.get(*KEY)
                pointed = held is not None and held.version_number == 1
                assert pointed == (registry.get("default", "churn", 1).archived_at is None)
                if pointed:
                    remove(aliases, *KEY)
                restore(registry, "default", "churn", 1)


def _register(place: Place, names: list[str]) -> None:
    with place.registry() as registry:
        for name in names:
            registry.register([registered(name, **SAME)])


def _change(place: Place, version_number: int, times: int) -> None:
    with place.registry() as registry, place.aliases() as aliases:
        model = registry.get("default", "churn", version_number)
        for turn in range(times):
            if turn % 3 == 2:
                rollback(registry, aliases, "default", "churn")
            else:
                promote(registry, aliases, replace(model, version_number=version_number), force=True, user=str(turn))


def test_promotes_rollbacks_and_registrations_at_once_leave_a_linear_history_and_no_gap(place: Place) -> None:
    """From four processes."""
    with place.registry() as registry, place.aliases() as aliases:
        for accuracy in (0.8, 0.9):
            promote(registry, aliases, version(registry, accuracy))
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as processes:
        for future in (
            processes.submit(_register, place, [f"a-{n}" for n in range(25)]),
            processes.submit(_register, place, [f"b-{n}" for n in range(25)]),
            processes.submit(_change, place, 1, 6),
            processes.submit(_change, place, 2, 6),
        ):
            future.result()
    with place.registry() as registry, place.aliases() as aliases:
        numbers = [one.version_number for one in registry.list(limit=100)]
        (alias,) = aliases.unannounced()
    assert sorted(numbers) == list(range(1, 53))
    assert [one.sequence for one in alias.history] == list(range(1, len(alias.history) + 1))
    held = [None, *(one.version_number for one in alias.history)]
    assert [one.previous_version_number for one in alias.history] == held[:-1]
    assert alias.unannounced == list(alias.history)
