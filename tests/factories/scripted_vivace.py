"""The `vivace` command with a scripted model: `python scripted_vivace.py OPTIONS-AS-JSON ARGUMENT...`.

The options are those of ScriptedService; `load_error` (a message) makes loading fail and
`controlling_terminal` takes the terminal on standard input as its own, so that its Ctrl-C key reaches the process.
"""

import fcntl
import json
import sys
import termios
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]


def main() -> int:
    from factories.scripted_service import ScriptedService
    from vivace.cli import main as cli_main
    from vivace.cli import model_options
    from vivace.types.errors import ModelFileError

    options: dict[str, Any] = json.loads(sys.argv[1])
    load_error = options.pop("load_error", None)
    if options.pop("controlling_terminal", False):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def build(arguments: object) -> Any:
        if load_error:
            raise ModelFileError(load_error, "Get it again.")
        return ScriptedService(**options)

    model_options.build = build
    return cli_main.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
