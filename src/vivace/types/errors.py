"""The one tree of errors. A message says what happened; `mend` says what to do about it.

Every class carries a stable `code` (the `code` of an API error object), the HTTP status a server answers with and the
exit status a command ends with. Nothing here formats output: `cli/` prints one line, `server/` makes an error object.
"""

from typing import ClassVar


class VivaceError(Exception):
    """Base of every error that vivace raises on purpose.

    Args:
        what: one sentence: what happened, with the offending value.
        mend: one sentence: how the caller puts it right; empty when nothing can be done.
    """

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 2

    def __init__(self, what: str, mend: str = "") -> None:
        self.what = what
        self.mend = mend
        super().__init__(f"{what} {mend}".strip())


class ConfigError(VivaceError):
    """A setting or argument that can never work."""

    code = "invalid_config"
    http_status = 400


class ModelFileError(VivaceError):
    """A model file that is damaged, truncated or not what its name says."""

    code = "invalid_model_file"


class UnsupportedModelError(VivaceError):
    """A sound model file that uses something vivace does not run."""

    code = "unsupported_model"


class TokenizerError(VivaceError):
    """A tokenizer that is missing or broken, or text that cannot be encoded."""

    code = "tokenizer_error"


class CatalogueError(VivaceError):
    """A model name that is unknown, or a download that failed."""

    code = "model_not_found"
    http_status = 404


class StorageError(VivaceError):
    """The disk is full, or a folder cannot be written."""

    code = "storage_error"


class MissingExtraError(VivaceError):
    """An optional dependency is not installed."""

    code = "missing_extra"


class RequestError(VivaceError):
    """A request that is malformed or asks for something impossible.

    Args:
        param: name of the offending field in the request body, if one is to blame.
    """

    code = "invalid_request"
    http_status = 400

    def __init__(self, what: str, mend: str = "", *, param: str | None = None) -> None:
        super().__init__(what, mend)
        self.param = param


class ContextLengthError(RequestError):
    """Prompt and answer do not fit into the model's context."""

    code = "context_length_exceeded"


class UnknownModelError(RequestError):
    """The request names a model that this server does not serve."""

    code = "model_not_found"
    http_status = 404


class OverloadedError(VivaceError):
    """The server cannot take the request now; a later try may succeed.

    Args:
        retry_after_s: seconds after which a new try is sensible.
    """

    code = "overloaded"
    http_status = 503

    def __init__(self, what: str, mend: str = "", *, retry_after_s: float = 1.0) -> None:
        super().__init__(what, mend)
        self.retry_after_s = retry_after_s


class TenantLimitError(OverloadedError):
    """The asker has too many requests in work already; others are still served."""

    code = "too_many_requests"
    http_status = 429


class EngineError(VivaceError):
    """The engine failed while it worked on a request."""

    code = "engine_error"
