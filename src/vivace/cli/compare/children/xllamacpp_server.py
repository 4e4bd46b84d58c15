"""llama.cpp's own HTTP server as xllamacpp ships it: MODEL PORT THREADS SLOTS CONTEXT; runs until it is killed."""

import sys
import threading

import xllamacpp


def main() -> None:
    """Serve."""
    model, port, threads, slots, context = sys.argv[1:]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.hostnames, parameters.port = ["127.0.0.1"], int(port)
    parameters.n_parallel = int(slots)
    parameters.n_ctx = int(slots) * int(context)
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = int(threads)
    server = xllamacpp.Server(parameters)
    print(server.listening_address, file=sys.stderr, flush=True)
    threading.Event().wait()
