"""Run an iterator in a thread of its own, a bounded number of items ahead: `Prefetch`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL = 0.1


class Prefetch(Generic[T]):
    """An iterable whose items are made in a background thread while others are being used.

    An exception of the source is raised where its next item would have come. Leaving the `with`
    block early stops the thread at its next item.

    Args:
        source: what to iterate; it is used by the thread only.
        ahead: number of items that may wait.

    Example:
        >>> with Prefetch(range(3)) as items:
        ...     list(items)
        [0, 1, 2]
    """

    def __init__(self, source: Iterable[T], ahead: int = 8) -> None:
        self._items: queue.Queue[T | _End] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(source,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._items.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join()

    def _work(self, source: Iterable[T]) -> None:
        error: BaseException | None = None
        try:
            for item in source:
                if not self._put(item):
                    return
        except BaseException as caught:  # raised again where the items are used
            error = caught
        self._put(_End(error))

    def _put(self, item: T | _End) -> bool:
        """Wait for room; False if nobody wants items any more."""
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._items.put(item, timeout=_POLL)
                return True
        return False


class _End:
    """Mark behind the last item, with the exception that ended the source, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
