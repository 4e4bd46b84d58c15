"""vivace: a chatbot inference stack."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivace.engine.llm import LLM

__all__ = ["LLM"]


def __getattr__(name: str) -> Any:
    """Load the Python API when it is first asked for: `import vivace` alone costs nothing."""
    if name in __all__:
        from vivace.engine.llm import LLM

        return LLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
