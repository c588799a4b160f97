"""Progress of a step of training, in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def step_bar(description: str, total: int, *, shown: bool) -> Iterator[Callable[[object], None]]:
    """A bar that moves on by one each time the yielded function is called, with anything."""
    with Progress(
        TextColumn(description),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=not shown,
    ) as bar:
        task = bar.add_task(description, total=total)
        yield lambda _done: bar.advance(task)
