"""The model behind the server: loaded and warmed in the background while the port is already open.

Owns the state "loading", "ready", "failed" or "closed". The loader thread is the only writer until `close`.
"""

import logging
import threading
from collections.abc import Callable
from enum import StrEnum

from vivace.engine.service import ModelService
from vivace.types.errors import EngineError, OverloadedError, VivaceError
from vivace.types.request import ChatMessage, GenerationRequest

logger = logging.getLogger(__name__)


class ModelState(StrEnum):
    """How far the model is."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    CLOSED = "closed"


class LoadingModel:
    """Loads a service in a thread of its own and proves with one token that it answers.

    Args:
        load: builds the service; runs in the loader thread.
        on_settled: called in the loader thread once the state is READY or FAILED.
        stand_in: a smaller model that answers under high load; started and closed with this one.
    """

    def __init__(
        self,
        load: Callable[[], ModelService],
        on_settled: Callable[["LoadingModel"], None] = lambda model: None,
        stand_in: "LoadingModel | None" = None,
    ) -> None:
        self._stand_in = stand_in
        self._load = load
        self._on_settled = on_settled
        self._lock = threading.Lock()
        self._service: ModelService | None = None
        self._state = ModelState.LOADING
        self._failure: VivaceError | None = None
        self._thread = threading.Thread(target=self._run, name="vivace-load", daemon=True)

    @property
    def state(self) -> ModelState:
        """How far the model is."""
        return self._state

    @property
    def failure(self) -> VivaceError | None:
        """Why loading failed, if it did."""
        return self._failure

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._thread.start()
        if self._stand_in is not None:
            self._stand_in.start()

    def stand_in_service(self) -> ModelService | None:
        """The smaller model's service, once it answers; None: there is none."""
        stand_in = self._stand_in
        return stand_in.service() if stand_in is not None and stand_in.state is ModelState.READY else None

    def services(self) -> tuple[ModelService, ...]:
        """All services that answer, the model's own first; raises as `service`."""
        stand_in = self.stand_in_service()
        return (self.service(),) if stand_in is None else (self.service(), stand_in)

    def named(self, name: str) -> ModelService:
        """The service of that name, the model's own where there is none; raises as `service`."""
        return next((service for service in self.services() if service.name == name), self.service())

    async def ask(self, question: str) -> str:
        """The model's own short answer to a question: how it judges a text, for one.

        Raises:
            VivaceError: it is not there, or it failed.
        """
        service = self.service()
        request = service.admit_chat([ChatMessage("user", question)], {"temperature": 0, "max_tokens": 8})
        return (await service.acomplete(request)).text

    def service(self) -> ModelService:
        """The service, once it answers.

        Raises:
            OverloadedError: the model is still loading, or the server is stopping.
            EngineError: the model could not be loaded.
        """
        service = self._service
        if self._state is ModelState.READY and service is not None:
            return service
        if self._state is ModelState.FAILED:
            raise EngineError(
                f"The model could not be loaded: {self._failure}", "Restart the server once it is mended."
            )
        if self._state is ModelState.CLOSED:
            raise OverloadedError("The server is stopping.", "Ask another server, or this one once it is back.")
        raise OverloadedError("The model is still loading.", "Wait until GET /ready answers 200.")

    def close(self) -> None:
        """Stop answering and free the model; one that is still being loaded is freed as soon as it is there."""
        with self._lock:
            self._state = ModelState.CLOSED
            service, self._service = self._service, None
        if service is not None:
            service.close()
        if self._stand_in is not None:
            self._stand_in.close()

    def join(self, timeout_s: float) -> None:
        """Wait for the loader thread, so that the process does not end in the middle of its work."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._stand_in is not None:
            self._stand_in.join(timeout_s)

    def _run(self) -> None:
        try:
            service = self._load()
            try:
                service.complete(_warm_up_request(service))
            except BaseException:
                service.close()
                raise
        except VivaceError as error:
            self._settle(ModelState.FAILED, failure=error)
        except Exception as error:
            logger.exception("loading the model failed")
            self._settle(ModelState.FAILED, failure=EngineError(f"{type(error).__name__}: {error}"))
        else:
            self._settle(ModelState.READY, service=service)

    def _settle(
        self, state: ModelState, *, service: ModelService | None = None, failure: VivaceError | None = None
    ) -> None:
        with self._lock:
            closed = self._state is ModelState.CLOSED
            if not closed:
                self._service, self._failure, self._state = service, failure, state
        if closed and service is not None:
            service.close()
        elif not closed:
            self._on_settled(self)


def _warm_up_request(service: ModelService) -> GenerationRequest:
    """One greedy token: it touches every weight and every kernel, so the first person does not wait for them."""
    return service.admit(service.encode("Hello"), {"temperature": 0.0, "max_tokens": 1})
