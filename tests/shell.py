"""Commands as a person or a script runs them: in a folder, with the environment they were given."""

import asyncio
import os
import pty
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None
    out: str
    said: str
    """What it wrote to standard error."""


class Shell:
    """A folder, and an environment of `PRICEBOOK_…` variables."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self._settings = settings

    def environment(self, **settings: str) -> dict[str, str]:
        """Every variable of ours, as set here; one that is empty is not set."""
        others = {name: value for name, value in os.environ.items() if "PRICEBOOK" not in name}
        ours = {f"PRICEBOOK_{name.upper()}": value for name, value in settings.items()}
        return others | {name: value for name, value in ours.items() if value}

    async def start(
        self,
        *arguments: str,
        stdin: int = asyncio.subprocess.PIPE,
        stderr: int = asyncio.subprocess.PIPE,
        **settings: str,
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pricebook.cli", *arguments),
            cwd=self.folder,
            env=self.environment(**self._settings | settings),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )

    async def run(self, *arguments: str, sent: bytes = b"", **settings: str) -> Ended:
        process = await self.start(*arguments, **settings)
        out, said = await process.communicate(sent)
        return Ended(process.returncode, out.decode(), said.decode())

    async def run_at_terminal(
        self,
        *arguments: str,
        answers: Mapping[str, str],
        shown: bytearray | None = None,
        **settings: str,
    ) -> Ended:
        """Run a command with a terminal, at which someone answers when a prompt appears.

        `shown` gets what the terminal shows, as it does.
        """
        terminal, its_end = pty.openpty()
        process = await self.start(*arguments, stdin=its_end, stderr=its_end, **settings)
        os.close(its_end)
        talking = asyncio.to_thread(
            _talk, terminal, answers, bytearray() if shown is None else shown
        )
        (out, _), said = await asyncio.gather(process.communicate(), talking)
        os.close(terminal)
        return Ended(process.returncode, out.decode(), said)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def read(self, name: str) -> str:
        return (self.folder / name).read_bytes().decode()

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


def _talk(terminal: int, answers: Mapping[str, str], seen: bytearray) -> str:
    """Answer each prompt in turn, and return all that the terminal showed."""
    for prompt, answer in answers.items():
        while prompt.encode() not in seen:
            seen += os.read(terminal, 4096)
        os.write(terminal, answer.encode() + b"\n")
    while True:
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # the command has ended
            return seen.decode()
