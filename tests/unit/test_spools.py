"""Spool folders: used again once they are empty, unless a training has done something odd to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from consumer.jobs.spools import Spools


@pytest.fixture
def spools(tmp_path: Path) -> Spools:
    return Spools(tmp_path)


def _taken(spools: Spools, *, watched: bool = False) -> Path:
    """A folder as a trainer leaves it."""
    folder = spools.take(watched=watched)
    folder.mkdir(exist_ok=True)
    (folder / "model.zip").write_bytes(b"x")
    return folder


def test_an_emptied_folder_is_used_again(spools: Spools) -> None:
    first, second = _taken(spools), _taken(spools)
    assert first != second
    spools.give_back(first)
    assert not [*first.iterdir()]
    assert spools.take(watched=False) == first
    assert spools.take(watched=False) not in (first, second)


def test_a_folder_of_which_checkpoints_are_made_is_new_and_goes(spools: Spools) -> None:
    spools.give_back(_taken(spools))
    watched = _taken(spools, watched=True)
    assert [path.name for path in watched.iterdir()] == ["model.zip"]
    spools.give_back(watched)
    assert not watched.exists()
    assert spools.take(watched=True) != watched


@pytest.mark.parametrize(
    "oddly",
    [
        lambda folder: (folder / "more").mkdir(),
        lambda folder: folder.chmod(0o500),
        lambda folder: folder.rename(folder.with_name("elsewhere")),
    ],
    ids=["a folder in it", "its rights", "not there"],
)
def test_what_a_training_did_to_its_folder_does_not_reach_the_next(
    spools: Spools, oddly: Callable[[Path], object]
) -> None:
    folder = _taken(spools)
    oddly(folder)
    spools.give_back(folder)
    assert not folder.exists()
    assert spools.take(watched=False) != folder
