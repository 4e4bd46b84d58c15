"""The wall around the `tokenizers` library, which raises bare exceptions and, from its core, panics."""

from collections.abc import Iterator
from contextlib import contextmanager

from vivace.types.errors import TokenizerError


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Turn whatever the library raises into a TokenizerError that begins with `what`.

    A panic derives from BaseException only, so everything is caught but the ways to end a program.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise TokenizerError(f"{what}: {str(error)[:300]}.", "Get the model again, or use another one.") from None
