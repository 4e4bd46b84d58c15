"""llama.cpp through xllamacpp: llama.cpp's own server, asked in process without HTTP, its answers streamed as text."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import xllamacpp

from .protocol import Streams, serve


class XllamacppEngine:
    """A server for each number of streams, made when it is first asked for.

    Options: model (path), threads, shapes ([streams, tokens of each]).
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._lengths: dict[int, int] = {}
        for streams, length in options["shapes"]:
            self._lengths[streams] = max(length, self._lengths.get(streams, 0))
        self._streams = 0
        self._server: Any = None
        self._use_server(min(self._lengths))

    def describe(self) -> dict[str, Any]:
        """Version and the CPU features in use."""
        from importlib.metadata import version

        return {"version": version("xllamacpp"), "system": str(xllamacpp.get_system_info())}

    def generate(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> Streams:
        """See ChildEngine."""
        self._use_server(len(prompts))
        streams = Streams.start(len(prompts))
        failures: list[str] = []

        def reader(stream: int) -> Callable[[Any], bool]:
            def read(chunk: Any) -> bool:
                for part in chunk if isinstance(chunk, list) else [chunk]:
                    if "error" in part or "code" in part:
                        failures.append(str(part))
                        return True
                    text = part["choices"][0]["text"]
                    if text:  # the last chunk has none
                        streams.note_text(stream, text)
                return False

            return read

        def ask(stream: int) -> None:
            body = {
                "prompt": list(prompts[stream]),
                "n_predict": num_tokens,
                "temperature": 0.0,
                "ignore_eos": True,
                "cache_prompt": False,
                "stream": True,
            }
            self._server.handle_completions(body, reader(stream))

        threads = [threading.Thread(target=ask, args=(stream,)) for stream in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise ValueError(failures[0])
        return streams

    def _use_server(self, num_streams: int) -> None:
        if num_streams == self._streams:
            return
        self._server = None
        parameters = xllamacpp.CommonParams()
        parameters.model.path = self._options["model"]
        parameters.n_ctx = num_streams * self._lengths[num_streams]
        parameters.n_parallel = num_streams
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = self._options["threads"]
        parameters.sampling.temp = 0.0
        parameters.warmup = False
        self._server = xllamacpp.Server(parameters)
        self._streams = num_streams


def main() -> None:
    """Serve."""
    serve(XllamacppEngine)
