"""vivace and other engines on the same prompts, in turns; the same as `vivace bench compare`.

python bench/compare.py --install --rows vivace,llama-cpp-python,openvino-genai --json found.json --plot found.png
"""

import sys

from vivace.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "compare", *sys.argv[1:]]))
