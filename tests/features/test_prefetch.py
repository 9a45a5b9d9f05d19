"""A thread of its own that never runs away and never swallows an error."""

import threading
import time
from collections.abc import Iterator

import pytest

from bayesfs.features.extraction.prefetch import Prefetch


def test_all_items_in_order() -> None:
    with Prefetch(range(100), ahead=3) as items:
        assert list(items) == list(range(100))


def test_made_in_another_thread() -> None:
    def source() -> Iterator[int]:
        yield threading.get_ident()

    with Prefetch(source()) as items:
        assert list(items) != [threading.get_ident()]


def test_an_error_arrives_where_it_happened() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("lost")

    with Prefetch(source()) as items:
        iterator = iter(items)
        assert next(iterator) == 1
        with pytest.raises(OSError, match="lost"):
            next(iterator)


def test_never_too_far_ahead_and_stops_when_left() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for n in range(1_000_000):
            made.append(n)
            yield n

    with Prefetch(source(), ahead=4) as items:
        assert next(iter(items)) == 0
        time.sleep(0.2)
        assert len(made) <= 1 + 4 + 1
        thread = items._thread
    assert not thread.is_alive()
