"""Opens the store that an operator has chosen for streams."""

from vivace.stream.journal import StreamStore
from vivace.stream.shared_store import StoreConfig
from vivace.types.errors import ConfigError


def open_store(config: StoreConfig) -> StreamStore | None:
    """The store, None where streams end with the process.

    Raises:
        ConfigError: a file and a URL at once, or a URL where nothing answers.
        MissingExtraError: the store needs a package that is not installed.
        StorageError: the file cannot be used.
    """
    if config.url is not None:
        if config.file is not None:
            raise ConfigError("Streams are kept in one place.", "Give --stream-file or --stream-store.")
        from vivace.stream.redis_store import RedisStore  # its package is an extra

        return RedisStore(config.url, config.lease_s)
    if config.file is None:
        return None
    from vivace.stream.sqlite_journal import SqliteJournal

    return SqliteJournal(config.file)
