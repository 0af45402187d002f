"""What everything that takes more of the box's capacity says in the transaction that records it; `quotas.py`
answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from paasd.database import Transaction


@dataclass(frozen=True)
class Asking:
    """Who asks, in which project. `writes`: to the disk, nobody knows yet how much."""

    organization_id: str
    project: str
    actor: str
    app: str | None = None
    writes: bool = False


class Gate(Protocol):
    def __call__(self, tx: Transaction, asking: Asking) -> AbstractAsyncContextManager[None]:
        """Around the statements that record what is asked for. Raises QuotaExceeded, which undoes them."""


@asynccontextmanager
async def unlimited(tx: Transaction, asking: Asking) -> AsyncIterator[None]:
    """The gate of a box without quotas."""
    yield
