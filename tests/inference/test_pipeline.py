"""The pipeline: concurrent stages in bounded memory, batches of one shape, and isolated failures."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowhue.inference.pipeline import (
    Busy,
    ByteBudget,
    Late,
    Limits,
    Pipeline,
    Stages,
    Stopping,
    in_threads,
    run,
)

EARLIER: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _earlier_threads():
    """Other tests of this process may have left servers to the garbage collector, with threads of their own."""
    EARLIER.clear()
    EARLIER.update(threading.enumerate())


def stages(**changes: Any) -> Stages:
    plain = Stages(lambda _: 1, lambda n: 10 * n, list, lambda n, decoded, answer: (n, decoded, answer))
    return plain._replace(**changes)


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def threads_left() -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("knowhue_") and thread not in EARLIER
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(1, 5), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3))
def test_every_item_comes_out_once_with_its_own_answer(
    count: int, threads: int, batch: int, held: int, predictors: int
):
    limits = Limits(threads, batch, held, predictors)
    found = [future.result() for _, future in run(stages(), range(count), limits)]
    assert sorted(found) == [(n, 10 * n, 10 * n) for n in range(count)]
    assert not threads_left()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(1, 4))
def test_what_is_held_stays_within_the_limit_and_what_is_heavier_is_alone(weights: list[int], threads: int):
    limit, lock, held = 8, threading.Lock(), []
    worst: list[tuple[int, int]] = []

    def decode(weight: int) -> int:
        with lock:
            held.append(weight)
            worst.append((sum(held), sum(each > 0 for each in held)))
        return weight

    def paint(weight: int, _: int, __: int) -> None:
        with lock:
            held.remove(weight)

    work = Stages(lambda weight: weight, decode, list, paint)
    assert len(list(run(work, weights, Limits(threads, 2, limit)))) == len(weights)
    assert all(total <= limit or count == 1 for total, count in worst)


def test_who_waits_for_room_is_not_overtaken():
    budget, order = ByteBudget(10), []
    budget.acquire(6)

    def come(weight: int) -> None:
        budget.acquire(weight)
        order.append(weight)

    large, small = (threading.Thread(target=come, args=(weight,)) for weight in (9, 1))
    large.start()
    time.sleep(0.02)
    small.start()
    time.sleep(0.02)
    assert order == []  # the small one would fit
    budget.release(6)
    large.join()
    small.join()
    assert order == [9, 1]


def test_one_thread_a_stage_keeps_the_order():
    found = [item for item, _ in run(stages(), range(100), Limits(threads=1, batch=3))]
    assert found == list(range(100))


def test_stages_work_at_the_same_time():
    """While the first item is painted, the second is predicted and the third decoded."""
    predicted, decoded, met = threading.Event(), threading.Event(), []

    def decode(item: int) -> int:
        if item == 2:
            decoded.set()
        return item

    def predict(values: Sequence[int]) -> Sequence[int]:
        if 1 in values:
            predicted.set()
        return values

    def paint(item: int, *_: int) -> None:
        if item == 0:
            met.append(predicted.wait(60) and decoded.wait(60))

    list(run(Stages(lambda _: 1, decode, predict, paint), range(3), Limits(1, 1)))
    assert met == [True]


def test_predicts_together_what_is_there_and_waits_for_no_more():
    batches, decoded, gate = [], [], threading.Event()

    def decode(item: int) -> int:
        decoded.append(item)
        return item

    def predict(values: Sequence[int]) -> Sequence[int]:
        gate.wait(60)
        batches.append(len(values))
        return values

    def items() -> Iterator[int]:
        yield from range(8)
        wait_until(lambda: len(decoded) > 5)  # some are being predicted; the others wait
        gate.set()

    assert len(list(run(stages(decode=decode, predict=predict), items(), Limits(1, 4)))) == 8
    assert sum(batches) == 8
    assert max(batches) == 4


def test_a_batch_is_of_one_shape_and_takes_the_oldest_first():
    batches, gate = [], threading.Event()

    def predict(values: Sequence[int]) -> Sequence[int]:
        batches.append(list(values))
        assert gate.wait(60)
        return values

    work = stages(decode=lambda n: n, predict=predict, shape=lambda n: n % 2)
    pipeline = Pipeline(work, Limits(1, 3))
    pipeline.submit(0)
    wait_until(lambda: batches)
    for number in range(1, 8):
        pipeline.submit(number)
    wait_until(lambda: len(pipeline._decoded) == 7)
    gate.set()
    pipeline.close()
    assert batches == [[0], [1, 3, 5], [2, 4, 6], [7]]


@pytest.mark.parametrize("stage", ["decode", "paint"])
def test_an_item_that_fails_is_told_and_the_others_go_on(stage: str):
    def odd(item: int, *_: Any) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    outcomes = list(run(stages(**{stage: odd}), range(8), Limits(2, 2)))
    assert [item for item, future in outcomes if future.exception()] == [3]
    assert sorted(item for item, _ in outcomes) == list(range(8))


def test_where_a_batch_fails_each_is_tried_alone():
    def predict(values: Sequence[int]) -> Sequence[int]:
        if 30 in values:
            raise ZeroDivisionError("three")
        return values

    outcomes = {
        item: future.exception() for item, future in run(stages(predict=predict), range(8), Limits(1))
    }
    assert {item for item, error in outcomes.items() if isinstance(error, ZeroDivisionError)} == {3}
    assert {item for item, error in outcomes.items() if error is None} == set(range(8)) - {3}
    assert not threads_left()


def test_items_that_fail_to_come_end_all():
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(run(stages(), items()))
    assert not threads_left()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_leaving_early_begins_nothing_more_and_leaves_no_thread(error: type[BaseException]):
    decoded: list[int] = []

    def decode(item: int) -> int:
        decoded.append(item)
        time.sleep(0.001)
        return item

    outcomes: Any = run(stages(decode=decode), range(10_000), Limits(2, 2, 4))
    next(outcomes)
    with pytest.raises(error):
        outcomes.throw(error)
    assert not threads_left()
    assert len(decoded) < 100


def test_when_items_end_early_what_was_submitted_is_finished():
    taken, stop = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(1000):
            if stop.is_set():
                return
            taken.append(number)
            yield number

    done = []
    for item, _ in run(stages(), items(), Limits(2, 2)):
        done.append(item)
        stop.set()
    assert sorted(done) == taken
    assert len(done) < 20


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
    assert len(list(run(work, items(), Limits(2, 2)))) == 6
    assert seen == [0]


def test_a_full_queue_refuses_until_somebody_leaves():
    gate = threading.Event()
    pipeline = Pipeline(stages(decode=lambda n: gate.wait(60) and n), Limits(1, queue_length=2))
    first, second = pipeline.submit(1), pipeline.submit(2)
    with pytest.raises(Busy, match="full with 2 items"):
        pipeline.check()
    assert second.cancel()
    third = pipeline.submit(3)
    gate.set()
    assert first.result(60)[0] == 1
    assert third.result(60)[0] == 3
    pipeline.close()
    assert pipeline.length == 0


def test_what_is_late_is_dropped_and_closing_finishes_the_rest():
    def slow(n: int) -> int:
        time.sleep(
            1.2 * (n == 1)
        )  # the first is done long before its time is up, however crowded the machine
        return n

    pipeline = Pipeline(stages(decode=slow), Limits(1, item_seconds=1.0))
    futures = [pipeline.submit(n) for n in range(3)]
    pipeline.stop()
    with pytest.raises(Stopping):
        pipeline.submit(4)
    pipeline.close(60)
    assert not threads_left()
    assert futures[0].result(0)[0] == 0
    assert all(isinstance(future.exception(0), Late) for future in futures[1:])


def test_aborting_drops_what_waits_even_for_room():
    started = threading.Event()

    def decode(n: int) -> int:
        started.set()
        time.sleep(0.05)
        return n

    pipeline = Pipeline(stages(decode=decode), Limits(3, held_bytes=1))  # one at a time; two wait for room
    futures = [pipeline.submit(n) for n in range(50)]
    assert started.wait(60)
    pipeline.abort()
    assert not threads_left()
    assert sum(future.done() for future in futures) < 5


def unequal(values: Sequence[int]) -> Sequence[int]:
    return values[1:]


def odd(*_: object) -> Any:
    raise ArithmeticError("odd")


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"predict": unequal}, ValueError),
        ({"predict": lambda _: None}, TypeError),
        ({"shape": odd}, ArithmeticError),
    ],
)
def test_a_stage_that_answers_otherwise_than_it_should_fails_its_items(
    changes: dict[str, Any], failure: type
):
    pipeline = Pipeline(stages(**changes), Limits(1, 3))
    futures = [pipeline.submit(n) for n in range(5)]
    assert all(isinstance(future.exception(5), failure) for future in futures)
    pipeline.close(60)
    assert pipeline.length == 0


@pytest.mark.parametrize("broken", ["weigh", "decode", "predict", "batch", "paint"])
def test_who_observes_and_fails_leaves_nobody_waiting(broken: str):
    def observe(stage: str, _: float) -> None:
        if stage == broken:
            odd()

    pipeline = Pipeline(stages(), Limits(1, 3), observe)
    futures = [pipeline.submit(n) for n in range(5)]
    assert all(isinstance(future.exception(5), ArithmeticError) for future in futures)
    pipeline.close(60)
    assert pipeline.length == 0


def test_errors_name_no_server_as_folders_and_videos_have_none():
    for error in (Busy(2, 1), Stopping(), Late(0.5)):
        assert not re.search("server|request|image", str(error), re.IGNORECASE)
    assert "2 items" in str(Busy(2, 1))
    assert "0.5 s" in str(Late(0.5))


def test_batches_are_full_while_those_that_paint_have_enough_to_do():
    sizes: list[int] = []

    def predict(decoded: Sequence[Any]) -> Sequence[Any]:
        sizes.append(len(decoded))
        return decoded

    def paint(item: int, decoded: Any, answer: Any) -> int:
        time.sleep(0.002)
        return item

    limits = Limits(threads=2, batch=4, batch_wait_seconds=5.0)
    found = [future.result() for _, future in run(stages(predict=predict, paint=paint), range(80), limits)]
    assert sorted(found) == list(range(80))
    assert sum(sizes) / len(sizes) > 3


def test_a_batch_that_waits_is_dropped_when_all_is_given_up():
    pipeline: Pipeline[int, Any] = Pipeline(
        stages(decode=lambda n: time.sleep(0.01 * n)), Limits(1, 8, batch_wait_seconds=60.0)
    )
    futures = [pipeline.submit(n) for n in (0, 30)]
    wait_until(lambda: pipeline._decoded)
    started = time.monotonic()
    pipeline.abort()
    assert time.monotonic() - started < 5
    assert not any(future.done() for future in futures)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_give_results_in_order_and_none_without_items(threads: int):
    assert in_threads(str, range(5), threads) == list("01234")
    assert in_threads(str, (), threads) == []
