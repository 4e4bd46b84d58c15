"""How busy the machine is with others while we measure (Linux; elsewhere nothing is known, and nothing waits)."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_PROBE_S = 0.25
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class Moment:
    """Processor seconds used so far: by everybody, and by the processes asked about."""

    at_s: float
    all_s: float
    ours_s: float


def moment(pid: int | None = None) -> Moment:
    """The counters now; `pid` and its children are "ours", as is this process."""
    pids = [os.getpid(), *(_family(pid) if pid is not None else [])]
    return Moment(time.perf_counter(), _all_busy_s(), sum(_busy_s(one) for one in pids))


def others_share(start: Moment, end: Moment) -> float:
    """Share of the machine that others used between two moments, 0 to 1."""
    wall_s = (end.at_s - start.at_s) * (os.cpu_count() or 1)
    others_s = (end.all_s - start.all_s) - (end.ours_s - start.ours_s)
    return min(1.0, max(0.0, others_s / wall_s)) if wall_s > 0 else 0.0


def wait_for_quiet(limit: float, patience_s: float) -> float:
    """Wait until others use less than `limit` of the machine, at most `patience_s`; returns the share last seen."""
    deadline_s = time.perf_counter() + patience_s
    while True:
        start = moment()
        time.sleep(_PROBE_S)
        share = others_share(start, moment())
        if share <= limit or time.perf_counter() >= deadline_s:
            return share


def processor_name() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown processor"
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    family = f" (family {named['cpu family']}, model {named['model']})" if "cpu family" in named else ""
    return named.get("model name", "unknown processor") + family


def load_average() -> float:
    """Of the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _all_busy_s() -> float:
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, irq, soft, stolen = (int(field) for field in fields[:8])
    return (user + nice + system + irq + soft + stolen) / _TICKS_PER_S


def _busy_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _family(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text(encoding="ascii").split()]
            except OSError:
                continue
    return found
