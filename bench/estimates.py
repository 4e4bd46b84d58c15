"""What a compression is told to take and what it takes: time, memory, bytes of the file; and stopped ones that go on.

    python bench/estimates.py --model smollm2-135m --calibrate-on wiki.utf8 --recipes int8 int4-fast w8a8 int4-awq int4
    python bench/estimates.py --model smollm2-135m --calibrate-on wiki.utf8 --recipes smallest-within:ppl+1% mixed:5.4
    python bench/estimates.py --model smollm2-135m --calibrate-on wiki.utf8 --recipes int4-awq --stop-at 20

Every row is the command itself (`vivace compress`) in a process of its own, on one machine that does nothing else.
`mixed:B` is `mixed` with B bits a weight. With `--stop-at N` a first run is killed (SIGKILL) when N segments are kept
(the first is what comes before the layers); the row is that of the run that goes on, and a whole run says whether the
bytes are the same. `--json` prints objects.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the recipes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--calibrate-on", action="append", default=[])
    parser.add_argument("--recipes", nargs="+", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--stop-at", type=int, metavar="N")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for recipe in asked.recipes:
            rows.append(row_of(asked, recipe, Path(folder)))
            print(f"{recipe}: done", file=sys.stderr, flush=True)
    if asked.json:
        print(json.dumps(rows))
        return
    print("| recipe | foretold | at most | took | off | foretold memory | held | off | bytes of the file | trials |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(line_of(row))


def row_of(asked: argparse.Namespace, recipe: str, folder: Path) -> dict[str, Any]:
    """One recipe, stopped on the way if that is asked for."""
    out = folder / f"{hashlib.sha256(recipe.encode()).hexdigest()[:8]}.gguf"
    if asked.stop_at is not None:
        stop(command_of(asked, recipe, out), folder / f".{out.name}.resume", asked.stop_at)
    found = run(command_of(asked, recipe, out)) | {"name": recipe}
    if asked.stop_at is not None:
        whole = out.with_suffix(".whole.gguf")
        run(command_of(asked, recipe, whole))
        found |= {"stopped_at": asked.stop_at, "same_bytes": digest(out) == digest(whole)}
    return found


def command_of(asked: argparse.Namespace, recipe: str, out: Path) -> list[str]:
    """The command line of one run."""
    name, _, bits = recipe.partition(":") if recipe.startswith("mixed:") else (recipe, "", "")
    command = [sys.executable, "-m", "vivace", "compress", asked.model, str(out), "--recipe", name, "--json"]
    command += ["--device", asked.device, *(["--bits-per-weight", bits] if bits else [])]
    return command + [part for path in asked.calibrate_on for part in ("--calibrate-on", path)]


def run(command: list[str]) -> dict[str, Any]:
    """Its figures, and the seconds of the whole command."""
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout) | {"command_s": time.monotonic() - started}


def stop(command: list[str], workplace: Path, segments: int) -> None:
    """Kill a run when so many segments of its work are kept."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (workplace / f"tensors{segments}.npz").exists():
        if process.poll() is not None:
            sys.exit(f"The run was done before {segments} segments were kept.")
        time.sleep(0.05)
    process.kill()
    process.wait()


def digest(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def line_of(row: dict[str, Any]) -> str:
    """A row of the table."""
    told, took = row["predicted_s"], row["seconds"]
    memory, held = row["predicted_peak_bytes"], row["peak_bytes"]
    stopped = f", stopped at {row['stopped_at']}, same bytes: {row['same_bytes']}" if "stopped_at" in row else ""
    size = row["predicted_file_bytes"]
    sizes = f"{row['file_bytes']:,}" + (" as foretold" if size == row["file_bytes"] else f", foretold {size}")
    cells = [
        f"`{row['name']}`{stopped}",
        f"{told:.1f} s",
        f"{row['predicted_most_s']:.1f} s",
        f"{took:.1f} s",
        f"{told / took - 1:+.0%}",
        f"{memory / 1e6:.0f} MB",
        f"{held / 1e6:.0f} MB",
        f"{memory / held - 1:+.0%}",
        sizes,
        ", ".join(f"{trial['bits_per_weight']:.2f}: {trial['measured']:.4f}" for trial in row["trials"]) or "-",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
