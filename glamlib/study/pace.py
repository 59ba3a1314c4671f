"""How fast a run trains: from the finished steps, as training tells of them, without what comes before full speed."""

import time

WARM_UP = 20  # steps: compilation, the loader's start, the allocator's growth


class Pace:
    """Called with the number of finished steps after each (`train`'s ``on_step``).

    Steps are timed from the first full multiple of ``every`` behind the warm-up to the last: there a GPU has finished
    what the processor has handed it.

    Args:
        warm_up: steps of this process that do not count.
        every: steps between two rows of the history.
    """

    def __init__(self, warm_up: int = WARM_UP, every: int = 10) -> None:
        self.warm_up = warm_up
        self.every = every
        self._begun: int | None = None  # steps that were finished when this process began
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    def __call__(self, step: int) -> None:
        if self._begun is None:
            self._begun = step - 1
        if step - self._begun < self.warm_up or step % self.every:
            return
        now = step, time.perf_counter()
        self._first, self._last = self._first or now, now

    @property
    def seconds_a_step(self) -> float | None:
        """Seconds of a step at full speed, None before there are two points in time."""
        if self._first is None or self._first == self._last:
            return None
        (first, start), (last, end) = self._first, self._last
        return (end - start) / (last - first)
