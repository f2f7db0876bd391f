"""A thread that works in steps: it stops at every report until another thread lets it go on.

Lightning's `fit` is one long call; a scheduler decides between reports. The thread that fits and the one that decides
take turns, so that nothing is trained past a decision.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
U = TypeVar("U")


class _Ended:
    """Stands in the queue behind the last item."""


class SteppedThread(Generic[T]):
    """Two threads taking turns. `give` is for the working side, the rest for the deciding side."""

    def __init__(self, work: Callable[[SteppedThread[T]], None]) -> None:
        self._out: queue.Queue[Any] = queue.Queue(1)
        self._go: queue.Queue[bool | Callable[[], Any]] = queue.Queue(1)
        self._thread = threading.Thread(target=self._run, args=(work,), name="fit", daemon=True)
        self._ended = False

    def _run(self, work: Callable[[SteppedThread[T]], None]) -> None:
        try:
            work(self)
            self._out.put(_Ended())
        except Exception as error:  # carried over to the deciding side
            # Lightning ends a process on Ctrl-C, and stumbles over that in a thread.
            interrupted = isinstance(error.__context__, KeyboardInterrupt)
            self._out.put(_left(error.__context__) if interrupted else error)
        except BaseException as error:
            self._out.put(_left(error))

    def give(self, item: T) -> bool:
        """Hand over `item` and wait for the decision. Return whether to go on."""
        self._out.put(item)
        while not isinstance(order := self._go.get(), bool):
            self._out.put(order())
        return order

    def start(self) -> T:
        """Start working; return the first item. Raises what the work raised."""
        self._thread.start()
        return self._take()

    def go_on(self) -> T:
        """Let the work go on; return the next item. Raises what the work raised."""
        self._go.put(True)
        return self._take()

    def ask(self, question: Callable[[], U]) -> U:
        """Have the working side answer, without going on. Raises what the question raised."""
        self._go.put(question)
        answer = self._out.get()
        if isinstance(answer, BaseException):
            self._ended = True
            raise answer
        return cast(U, answer)

    def stop(self) -> None:
        """Let the work end and wait for it. Raises what the work raised."""
        if not self._ended:
            self._go.put(False)
            rest = self._out.get()
            self._ended = True
            if isinstance(rest, BaseException):
                raise rest
            if not isinstance(rest, _Ended):
                raise RuntimeError("the work went on after the order to stop")
        self._thread.join()

    def _take(self) -> T:
        item: T | BaseException | _Ended = self._out.get()
        if isinstance(item, _Ended):
            self._ended = True
            raise RuntimeError("the work ended without a final report")
        if isinstance(item, BaseException):
            self._ended = True
            raise item
        return item


def _left(error: BaseException | None) -> RuntimeError:
    """Return the error for SystemExit and its like, which must not end the process that hosts the thread."""
    assert error is not None
    return RuntimeError(f"the work was left by {type(error).__name__}").with_traceback(error.__traceback__)
