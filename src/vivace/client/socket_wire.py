"""What both WebSocket clients make of a connection that cannot be had, or is lost."""

from websockets.exceptions import InvalidStatus

from vivace.client.dialogue import TryAgainError
from vivace.client.events import StreamBrokenError, error_of
from vivace.client.retry import RETRIED_STATUSES, Backoff

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


def wait_before_reconnect(backoff: Backoff, failure: BaseException | None) -> float:
    """Seconds until the next connection.

    Raises:
        StreamBrokenError: another one would not help, or enough have been tried.
    """
    refused: StreamBrokenError | None = None
    if isinstance(failure, InvalidStatus):
        status = failure.response.status_code
        refused = error_of(status, bytes(failure.response.body or b""))
        if status not in RETRIED_STATUSES:
            raise refused
    elif isinstance(failure, TryAgainError) and isinstance(failure.__cause__, StreamBrokenError):
        refused = failure.__cause__
    wait_s = backoff.next_wait_s()
    if wait_s is None:
        raise refused or StreamBrokenError(f"The connection was lost: {failure or 'it was cut'}.", "Try again later.")
    return wait_s
