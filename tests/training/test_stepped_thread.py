"""Two threads taking turns."""

import threading

import pytest

from study.training.stepped_thread import SteppedThread


def count_to(n: int, done: list[int]):
    def work(hand_over: SteppedThread[int]) -> None:
        for i in range(n):
            done.append(i)
            if not hand_over.give(i):
                return

    return work


def test_nothing_is_done_past_a_hand_over() -> None:
    done: list[int] = []
    hand_over = SteppedThread(count_to(5, done))
    assert hand_over.start() == 0
    assert done == [0]
    assert hand_over.go_on() == 1
    hand_over.stop()
    assert done == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name == "fit"]


def test_what_the_work_raises_arrives_where_it_is_waited_for() -> None:
    def work(hand_over: SteppedThread[int]) -> None:
        hand_over.give(1)
        raise ArithmeticError("broke")

    hand_over = SteppedThread(work)
    hand_over.start()
    with pytest.raises(ArithmeticError, match="broke"):
        hand_over.go_on()
    hand_over.stop()  # nothing left to wait for


def test_sys_exit_in_the_work_does_not_end_us() -> None:
    def work(hand_over: SteppedThread[int]) -> None:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="SystemExit"):
        SteppedThread(work).start()


def test_work_that_ends_too_early_is_an_error() -> None:
    hand_over = SteppedThread(count_to(1, []))
    hand_over.start()
    with pytest.raises(RuntimeError, match="without a final report"):
        hand_over.go_on()
