"""Steps on a GPU as CUDA graphs: one launch in place of a hundred.

At a batch of 256 and layers of 256 units a GPU computes a gradient step of soft actor-critic faster than Python can
launch its kernels. All arrays of a step have fixed places, so it is recorded once and replayed from then on.
"""

import logging
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Step = Callable[[], None]
#: More recordings than so many are forgotten, the oldest first: a value that changes in every update would fill memory.
MOST_RECORDINGS = 8


def record_cuda_graph(step: Step) -> Step:
    """Return what replays ``step``, which must launch the same kernels on the same memory in every call.

    The step is made once before it is recorded, because libraries allocate and choose algorithms at first use.

    Raises:
        RuntimeError: if it cannot be recorded.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class RecordedSteps:
    """Makes steps, recording each kind at its first use.

    Args:
        state: every tensor that a step changes and a later one reads; recording leaves them as they are.
        record: makes a step and returns what repeats it.
    """

    def __init__(self, state: Sequence[Tensor], record: Callable[[Step], Step] = record_cuda_graph) -> None:
        self._state, self._record = tuple(state), record
        self._recorded: dict[Hashable, Step | None] = {}

    def run(self, step: Step, kind: Hashable) -> None:
        """Make a step.

        Args:
            step: works on fixed memory.
            kind: of every Python value that ``step`` reads; another kind is recorded anew.
        """
        if kind not in self._recorded:
            if len(self._recorded) == MOST_RECORDINGS:
                del self._recorded[next(iter(self._recorded))]
            self._recorded[kind] = self._recording_of(step)
        (self._recorded[kind] or step)()

    def _recording_of(self, step: Step) -> Step | None:
        """Return what repeats the step; ``None``, with the reason in the log, if it cannot be recorded."""
        saved = [tensor.clone() for tensor in self._state]
        try:
            return self._record(step)
        except RuntimeError as error:
            logger.warning(f"The update runs without a CUDA graph, which could not be recorded: {error}")
            return None
        finally:
            for tensor, value in zip(self._state, saved, strict=True):
                tensor.copy_(value)
