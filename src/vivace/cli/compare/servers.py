"""The servers vivace's is compared with, as a table, and how one is started and ended."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vivace.cli.compare.environments import PeerError, child_program, peers_folder, python_of
from vivace.cli.compare.formats import model_in
from vivace.cli.compare.llama_server import llama_server_program
from vivace.cli.compare.peers import FILE, PEERS
from vivace.files.cache_folder import make_folder

START_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a server is started for."""

    model: Path
    threads: int
    slots: int
    context: int


Command = Callable[[Load, int], list[str]]
"""The command that serves a load on a port."""


def _vivace(*more: str) -> Command:
    def command(load: Load, port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "vivace", "serve", "--model", str(load.model), "--port", str(port)),
            *("--threads", str(load.threads), "--context", str(load.context), *more),
        ]

    return command


def _xllamacpp(load: Load, port: int) -> list[str]:
    sizes = [str(number) for number in (port, load.threads, load.slots, load.context)]
    return [str(python_of(PEERS["xllamacpp"])), "-c", child_program("xllamacpp_server"), str(load.model), *sizes]


def _llama_server(load: Load, port: int) -> list[str]:
    return [
        *(str(llama_server_program()), "--model", str(load.model), "--host", "127.0.0.1", "--port", str(port)),
        *("--threads", str(load.threads), "--parallel", str(load.slots)),
        *("--ctx-size", str(load.slots * load.context), "--jinja"),
    ]


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One server: the command, and the format it reads (a row of `formats.FORMATS`)."""

    command: Command
    format: str


SERVERS: Mapping[str, ServerRow] = {
    "vivace": ServerRow(_vivace(), FILE),
    "vivace-8bit": ServerRow(_vivace("--activation-bits", "8"), FILE),
    "vivace-w8": ServerRow(_vivace("--weights", "int8"), FILE),
    "llama-server": ServerRow(_llama_server, FILE),
    "llama-server:Q4_0": ServerRow(_llama_server, "Q4_0"),
    "xllamacpp": ServerRow(_xllamacpp, FILE),
    "xllamacpp:Q4_0": ServerRow(_xllamacpp, "Q4_0"),
}


class RunningServer:
    """A server that answers on `port` until `close`.

    Raises:
        PeerError: it is not installed, or does not come up; its log is kept.
    """

    def __init__(self, name: str, load: Load) -> None:
        row = SERVERS[name]
        here = load.model if row.format == FILE else model_in(row.format, load.model, Path(sys.executable))
        self.port = _free_port()
        make_folder(peers_folder())
        self._log = peers_folder() / f"server-{name.replace(':', '-')}.log"
        command = row.command(Load(here, load.threads, load.slots, load.context), self.port)
        started_s = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            self.model = self._wait(started_s)
        except BaseException:
            self.close()
            raise
        self.ready_s = time.perf_counter() - started_s

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def close(self) -> None:
        """End the process; may be called twice."""
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def main_thread_s(self) -> float:
        """Processor time of the process's first thread: in vivace the one of HTTP, text and streams."""
        return _thread_s(Path(f"/proc/{self.pid}/task/{self.pid}/stat"))

    def peak_memory_bytes(self) -> int:
        """The most memory the process has held."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmHWM")), 0)

    def _wait(self, started_s: float) -> str:
        """Until it says which model it serves; returns the model's name."""
        import httpx

        while time.perf_counter() - started_s < START_LIMIT_S and self._process.poll() is None:
            try:
                said = httpx.get(f"http://127.0.0.1:{self.port}/v1/models", timeout=5)
                models = said.json().get("data") if said.status_code == 200 else None
                if models:
                    return str(models[0]["id"])
            except (httpx.HTTPError, ValueError):
                pass
            time.sleep(0.02)
        raise PeerError("did not come up", f"The log is {self._log}.")


def _thread_s(path: Path) -> float:
    fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check_names(names: Sequence[str]) -> list[str]:
    """Names that are no row of SERVERS."""
    return [name for name in names if name not in SERVERS]
