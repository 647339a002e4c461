import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowhue.inference.folders.pipeline import Limits, Stages, flow
from knowhue.inference.folders.room import Room


def stages(**changes: Any) -> Stages:
    plain = Stages(lambda _: 1, lambda n: 10 * n, list, lambda n, begun, answer: (n, begun, answer))
    return plain._replace(**changes)


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("knowhue-folder-")]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(1, 5), st.integers(1, 9), st.integers(1, 5))
def test_every_item_comes_out_once_with_its_own_answer(count: int, threads: int, batch: int, room: int):
    found = [outcome.result for outcome in flow(range(count), stages(), Limits(threads, batch, room))]
    assert sorted(found) == [(n, 10 * n, 10 * n) for n in range(count)]
    assert not threads_left()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(1, 4))
def test_what_is_held_stays_within_the_limit_and_what_is_heavier_is_alone(weights: list[int], threads: int):
    limit, lock, held = 8, threading.Lock(), []
    worst: list[tuple[int, int]] = []

    def begin(weight: int) -> int:
        with lock:
            held.append(weight)
            worst.append((sum(held), len(held)))
        return weight

    def finish(weight: int, _: int, __: int) -> None:
        with lock:
            held.remove(weight)

    work = Stages(lambda weight: weight, begin, list, finish)
    assert len(list(flow(weights, work, Limits(threads, 2, limit)))) == len(weights)
    assert all(total <= limit or count == 1 for total, count in worst)


def test_who_waits_for_room_is_not_overtaken():
    room, order = Room(10, 9), []
    room.enter(6)

    def come(weight: int) -> None:
        room.enter(weight)
        order.append(weight)

    large, small = (threading.Thread(target=come, args=(weight,)) for weight in (9, 1))
    large.start()
    time.sleep(0.02)
    small.start()
    time.sleep(0.02)
    assert order == []  # the small one would fit
    room.leave(6)
    large.join()
    small.join()
    assert order == [9, 1]


def test_stages_work_at_the_same_time():
    """While the first item is finished, the second is predicted and the third begun."""
    predicted, begun, met = threading.Event(), threading.Event(), []

    def begin(item: int) -> int:
        if item == 2:
            begun.set()
        return item

    def predict(values: Sequence[int]) -> Sequence[int]:
        if 1 in values:
            predicted.set()
        return values

    def finish(item: int, *_: int) -> None:
        if item == 0:
            met.append(predicted.wait(5) and begun.wait(5))

    list(flow(range(3), Stages(lambda _: 1, begin, predict, finish), Limits(1, 1)))
    assert met == [True]


def test_predicts_together_what_is_there_and_waits_for_no_more():
    batches, gate = [], threading.Event()

    def predict(values: Sequence[int]) -> Sequence[int]:
        gate.wait(5)
        batches.append(len(values))
        return values

    def items() -> Iterator[int]:
        yield from range(8)
        time.sleep(0.05)  # some are being predicted; the others wait
        gate.set()

    assert len(list(flow(items(), stages(predict=predict), Limits(1, 4)))) == 8
    assert sum(batches) == 8
    assert max(batches) == 4


@pytest.mark.parametrize("stage", ["begin", "finish"])
def test_an_item_that_fails_is_told_and_the_others_go_on(stage: str):
    def odd(item: int, *_: Any) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    outcomes = list(flow(range(8), stages(**{stage: odd}), Limits(2, 2)))
    assert [outcome.item for outcome in outcomes if outcome.error] == [3]
    assert sorted(outcome.item for outcome in outcomes) == list(range(8))


@pytest.mark.parametrize("stage", ["weigh", "predict"])
def test_a_stage_that_must_not_fail_ends_all_when_it_does(stage: str):
    def broken(_: Any) -> Any:
        raise ZeroDivisionError(stage)

    with pytest.raises(ZeroDivisionError, match=stage):
        list(flow(range(100), stages(**{stage: broken}), Limits(3, 2, 4)))
    assert not threads_left()


def test_items_that_fail_to_come_end_all():
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(flow(items(), stages()))
    assert not threads_left()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_leaving_early_begins_nothing_more_and_leaves_no_thread(error: type[BaseException]):
    begun: list[int] = []

    def begin(item: int) -> int:
        begun.append(item)
        time.sleep(0.001)
        return item

    outcomes = flow(range(10_000), stages(begin=begin), Limits(2, 2, 4))
    next(outcomes)
    with pytest.raises(error):
        outcomes.throw(error)
    assert not threads_left()
    assert len(begun) < 100


def test_when_items_end_early_what_has_begun_is_finished():
    begun, stop = [], threading.Event()

    def begin(item: int) -> int:
        begun.append(item)
        return item

    items = iter(lambda: len(begun) if not stop.is_set() else -1, -1)
    done = []
    for outcome in flow(items, stages(begin=begin), Limits(2, 2)):
        done.append(outcome)
        stop.set()
    assert len(done) == len(begun)


def test_a_waiting_thread_holds_nothing_of_what_it_did():
    class Heavy:
        alive = 0

        def __init__(self) -> None:
            Heavy.alive += 1

        def __del__(self) -> None:
            Heavy.alive -= 1

    def items() -> Iterator[int]:
        yield from range(6)
        for _ in range(100):
            if not Heavy.alive:
                break
            time.sleep(0.01)
        seen.append(Heavy.alive)

    seen: list[int] = []
    work = Stages(lambda _: 1, lambda _: Heavy(), lambda values: [None] * len(values), lambda *_: None)
    assert len(list(flow(items(), work, Limits(2, 2)))) == 6
    assert seen == [0]
