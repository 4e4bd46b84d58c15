"""The `vivace` command over a babbling model and a real engine: `python babbling_vivace.py STEP_S ARGUMENT...`."""

import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]


def main() -> int:
    from factories.babbling_service import babbling_service
    from vivace.cli import main as cli_main
    from vivace.cli import model_options

    def build(arguments: object) -> Any:
        return babbling_service(step_s=float(sys.argv[1]))

    model_options.build = build
    return cli_main.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
