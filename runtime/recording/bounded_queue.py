"""The queue between the loop's threads and the recorder's: bounded in items and in bytes, and never waited for."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class BoundedQueue(Generic[ItemT]):
    """Many producers, one consumer, first in first out. What does not fit is dropped and counted, by kind.

    Small things outlive large ones: an item may be given a `share` below 1 of both bounds, and is dropped when they are
    filled that far. The consumer takes no lock, because its thread runs niced: one that was put aside while it held a
    lock would hold up the loop.
    """

    def __init__(self, items: int, size_bytes: int) -> None:
        self.max_items, self.max_bytes = items, size_bytes
        self._items: deque[tuple[ItemT, int]] = deque()
        self._producers = threading.Lock()
        self._put_items = self._put_bytes = 0  # written by producers only, the next two by the consumer only
        self._got_items = self._got_bytes = 0
        self.dropped: Counter[str] = Counter()

    def put(self, item: ItemT, size_bytes: int, kind: str, share: float = 1.0) -> bool:
        """Append `item`, or drop it and count it under `kind`. Whether it was appended."""
        with self._producers:
            fits = (
                self.items_waiting + 1 <= share * self.max_items
                and self.bytes_waiting + size_bytes <= share * self.max_bytes
            )
            if not fits:
                self.dropped[kind] += 1
                return False
            # Counted before it is visible: the consumer's subtraction can never come first.
            self._put_items += 1
            self._put_bytes += size_bytes
            self._items.append((item, size_bytes))
            return True

    def get(self) -> ItemT | None:
        """The oldest item, None when there is none. From one thread only."""
        try:
            item, size_bytes = self._items.popleft()
        except IndexError:
            return None
        self._got_items += 1
        self._got_bytes += size_bytes
        return item

    @property
    def items_waiting(self) -> int:
        """Items put and not yet taken; never less than there are."""
        return self._put_items - self._got_items

    @property
    def bytes_waiting(self) -> int:
        """Their bytes, as declared."""
        return self._put_bytes - self._got_bytes
