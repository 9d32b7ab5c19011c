"""How far long work is, as a bar for whoever sits at the terminal, and nothing for anyone else."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """Show the speed of the last seconds."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")


class Bar:
    """One bar, which may begin anew with another word for what is going on."""

    def __init__(self, progress: Progress) -> None:
        """Begin empty."""
        self._progress = progress
        self._words: str | None = None
        self._task = progress.add_task("", total=None, visible=False)

    def show(self, words: str, done: int, total: int | None) -> None:
        """Say what is going on, and how far it is."""
        if words != self._words:
            self._words = words
            self._progress.reset(self._task, description=words, total=total, visible=True)
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """Show a bar on standard error, if that is a terminal; it leaves nothing behind."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f}"),
        _Rate(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield Bar(progress)
