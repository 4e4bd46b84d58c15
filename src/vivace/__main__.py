"""`python -m vivace` is the same as `vivace`."""

import sys

from vivace.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
