#!/bin/sh
# Print the Python to build with, or say on stderr what this machine lacks and how to get it (exit status 1).
# PYTHON and CXX in the environment are respected.
set -u

pythons=${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}

find_python() {
    for candidate in $pythons; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

find_compiler() {
    for candidate in ${CXX:-c++ g++ clang++}; do
        if printf '#include <bit>\n#include <concepts>\n#include <span>\nint main() {}\n' |
            "$candidate" -std=c++20 -fsyntax-only -x c++ - 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

complain() {
    printf 'vivace cannot be built here: %s\n' "$1" >&2
}

python=$(find_python)
if [ -z "$python" ]; then
    complain "Python 3.11 or newer is needed, and none of these is one: $pythons."
    printf 'Install one (Debian 12, Ubuntu 24.04 and later have it), or name one: make serve PYTHON=python3.12\n' >&2
    exit 1
fi

packages=""
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    complain "$python has no venv module."
    packages="$packages python3-venv"
fi
if ! "$python" -c 'import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())'; then
    complain "the C headers of $python (Python.h) are missing."
    packages="$packages python3-dev"
fi
if [ -z "$(find_compiler)" ]; then
    complain "no C++20 compiler works (tried: ${CXX:-c++ g++ clang++})."
    packages="$packages g++"
fi
if [ -n "$packages" ]; then
    printf 'On Debian or Ubuntu: sudo apt install%s\n' "$packages" >&2
    exit 1
fi
printf '%s\n' "$python"
