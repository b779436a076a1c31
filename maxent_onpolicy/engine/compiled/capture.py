"""An epoch of compiled steps as CUDA graphs: one launch for dozens of minibatches."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

Call = tuple[Callable[..., Tensor], list[Tensor]]

# Minibatches in one graph: a launch is then negligible, and a graph of long rollouts stays small.
CHUNK = 64

logger = logging.getLogger(__name__)


class CapturedEpoch:
    """The calls of an epoch, recorded once and replayed; their tensors must stay where they are.

    Where recording fails, the calls are launched one by one, still without waiting for the device.

    Args:
        calls: programs that have run before, with their arguments.
    """

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls
        self._addresses = addresses(calls)
        self._graphs: list[torch.cuda.CUDAGraph] | None = None
        self._failed = False

    def fits(self, calls: list[Call]) -> bool:
        """Whether these are the recorded calls, on the same memory."""
        return addresses(calls) == self._addresses

    def run(self, side_effects_undone: Callable[[], AbstractContextManager[None]]) -> None:
        """Run the epoch.

        Args:
            side_effects_undone: a context in which the programs are recorded.
        """
        if self._graphs is None and not self._failed:
            try:
                with side_effects_undone():
                    self._graphs = [record(self._calls[i : i + CHUNK]) for i in range(0, len(self._calls), CHUNK)]
            except RuntimeError as error:
                self._failed = True
                logger.warning(
                    "CUDA graphs cannot record the update (%s): its programs are launched one by one.",
                    str(error).partition("\n")[0],
                )
        if self._graphs is None:
            for program, arguments in self._calls:
                program(*arguments)
            return
        for graph in self._graphs:
            graph.replay()


def record(calls: list[Call]) -> torch.cuda.CUDAGraph:
    """Record calls as one CUDA graph; nothing is computed."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for program, arguments in calls:
            program(*arguments)
    return graph


def addresses(calls: list[Call]) -> list[tuple[object, ...]]:
    """Return which programs are called on which memory."""
    return [(id(program), *(tensor.data_ptr() for tensor in arguments)) for program, arguments in calls]
