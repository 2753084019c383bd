"""The batches of an epoch: the next one is made while one is trained on, and no one can tell."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.data_loader import skip_first_batches

from radpref.training.division import SHARE, Ahead, Batches, Shuffled, loader

ARGS = SimpleNamespace(dataloader_pin_memory=False)


def made(collate: Any = None, count: int = 7, batch: int = 3) -> Ahead:
    found = loader(
        range(count), Batches(Shuffled(count, 0), batch), collate or (lambda items, _: {"items": items}), ARGS
    )
    found.set_epoch(0)
    return found


@pytest.fixture(autouse=True)
def _ends_its_threads() -> Iterator[None]:
    before = {*threading.enumerate()}
    yield
    assert not {*threading.enumerate()} - before


def test_they_come_in_the_order_of_the_seed_and_say_what_they_count() -> None:
    order = list(Shuffled(7, 0))
    found = list(made())
    assert [item for batch in found for item in batch["items"]] == order
    assert [batch[SHARE] for batch in found] == [1.0, 1.0, pytest.approx(1 / 3)]
    assert len(made()) == len(found) == 3


def test_the_next_one_is_made_while_one_is_in_use() -> None:
    second = threading.Event()
    seen: list[int] = []

    def collate(items: list[int], _: list[bool]) -> dict[str, Any]:
        seen.append(threading.get_ident())
        if len(seen) == 2:
            second.set()
        return {"items": items}

    batches = iter(made(collate))
    next(batches)
    assert second.wait(10)  # nobody has asked for it
    assert threading.get_ident() not in seen
    assert len(list(batches)) == 2


def test_what_goes_wrong_in_making_one_is_raised_where_it_is_asked_for() -> None:
    def collate(items: list[int], _: list[bool]) -> dict[str, Any]:
        if len(items) == 1:
            raise ValueError("a bad image")
        return {"items": items}

    batches = iter(made(collate))
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(ValueError, match="a bad image"):
        next(batches)


def test_a_training_that_stops_early_leaves_no_thread_behind() -> None:
    batches = iter(made())
    next(batches)
    batches.close()  # type: ignore[attr-defined]


def test_a_training_that_is_resumed_skips_what_it_has_seen() -> None:
    whole = [batch["items"] for batch in made()]
    assert [batch["items"] for batch in skip_first_batches(made(), 2)] == whole[2:]
