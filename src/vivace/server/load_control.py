"""Looks at the load and does what the steps say: to the engine and to new requests; tells readers and metrics.

Owns which steps are taken. Belongs to the event loop.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from vivace.engine.service import ModelService
from vivace.server.load_meter import LoadMeter
from vivace.server.load_steps import Change, LoadConfig, LoadSteps
from vivace.server.loading import LoadingModel, ModelState
from vivace.server.requests import GenerationFields
from vivace.types.errors import ContextLengthError, VivaceError
from vivace.types.request import GenerationRequest

logger = logging.getLogger(__name__)

LOOK_S = 0.25
"""Time between two looks at the load."""

AdmittedT = TypeVar("AdmittedT")
Tell = Callable[[str, dict[str, object]], None]


class LoadControl:
    """The steps of one server.

    Args:
        config: the steps.
        model: what is served, with the smaller model that may stand in for it.
        meter: told of every change.
    """

    def __init__(self, config: LoadConfig, model: LoadingModel, meter: LoadMeter | None = None) -> None:
        self._config = config
        self._model = model
        self._meter = meter
        self._steps = LoadSteps(config)
        self._values: dict[str, str] = {}
        self.tell: Tell = lambda name, told: None
        """Tells the readers of all streams."""

    async def look_for_ever(self) -> None:
        """Look at the load until cancelled; nothing to do where no steps are configured."""
        while self._config.steps:
            await asyncio.sleep(LOOK_S)
            try:
                self.look(asyncio.get_running_loop().time())
            except VivaceError as error:  # closing
                logger.debug("no look at the load: %s", error)
            except Exception:
                logger.exception("a look at the load failed")

    def look(self, now_s: float) -> None:
        """One look, and what follows from it."""
        if self._model.state is not ModelState.READY:
            return
        services = self._model.services()
        stats = [service.stats() for service in services]
        change = self._steps.note(now_s, sum(each.running_sequences + each.waiting_sequences for each in stats))
        if change is not None:
            self._do(change)

    async def admit(
        self, admit: Callable[[ModelService], AdmittedT], wire: GenerationFields, *, has_ids: bool = False
    ) -> tuple[ModelService, AdmittedT]:
        """Have a new request admitted by the model that answers it now.

        Args:
            admit: checks it and turns it into tokens; slow, so it runs in a thread.
            wire: the request; one that speaks of token ids is answered by the model whose ids they are.
            has_ids: it does in its prompt.

        Raises:
            VivaceError: what `admit` raises.
        """
        main, stand_in = self._model.service(), None
        if "model" in self._values and not (has_ids or wire.logit_bias or wire.stop_token_ids):
            stand_in = self._model.stand_in_service()
        service = stand_in or main
        try:
            return service, await asyncio.to_thread(admit, service)
        except ContextLengthError:
            if service is main:
                raise
        return main, await asyncio.to_thread(admit, main)  # too long for the smaller one

    def eased(self, request: GenerationRequest, service: ModelService) -> GenerationRequest:
        """A new request as it is answered now: shorter, and seeing less of its past, where the steps say so."""
        most, window = self._values.get("max_tokens"), self._values.get("kv_window")
        if most is not None:
            room = max(1, service.context_length - len(request.prompt_ids))
            wanted = request.stopping.max_tokens
            shorter = min(int(most), room if wanted is None else wanted)
            request = replace(request, stopping=replace(request.stopping, max_tokens=shorter))
        if window is not None and request.kv_policy is None:
            request = replace(request, kv_policy=f"window:{window}")
        return request

    def told(self) -> dict[str, object] | None:
        """What a new stream is told of the steps that are taken; None: there are none."""
        return {"steps": self._names()} if self._values else None

    def _do(self, change: Change) -> None:
        step = change.step
        if change.is_taken:
            self._values[step.kind] = step.value
        else:
            self._values.pop(step.kind, None)
        if step.kind == "background":
            for service in self._model.services():
                service.set_background(not change.is_taken)
        if step.kind == "speculation":
            self._model.service().set_speculation(not change.is_taken)
        logger.warning("load: step %s is %s", step.kind, "taken" if change.is_taken else "taken back")
        if self._meter is not None:
            self._meter.changed(step.kind, change.is_taken)
        told: dict[str, object] = {"step": step.kind, "is_taken": change.is_taken, "steps": self._names()}
        self.tell("degraded", told | ({"value": step.value} if step.value else {}))

    def _names(self) -> list[str]:
        return [step.kind for step in self._steps.taken]
