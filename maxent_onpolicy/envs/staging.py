"""Host memory from which, and to which, a GPU copies without waiting: one transfer a step each way."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 16


class HostStaging:
    """Carries arrays to a device, and actions back, through page-locked memory.

    Everything of one step travels in a single copy, because a GPU takes about as long to start a copy as to make a
    small one. Two buffers take turns, so that one can be filled while the other is still being read. On the CPU the
    results are ordinary copies.

    Args:
        device: the other end.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._cuda = self.device.type == "cuda"
        self._outboxes = [torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.uint8)]
        self._sent: list[torch.cuda.Event | None] = [None, None]
        self._inbox = torch.empty(0)
        self._turn = 0

    def send(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        """Return tensors on the device with the shapes, types and values of ``arrays``."""
        starts, total = [], 0
        for array in arrays:
            starts.append(total)
            total += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        host = self._outbox(total)
        memory = host.numpy()
        for start, array in zip(starts, arrays, strict=True):
            place = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            np.copyto(place, array)
        # Into new memory of the device: what was sent before may still be in use.
        sent = torch.empty(total, dtype=torch.uint8, device=self.device)
        sent.copy_(host[:total], non_blocking=self._cuda)
        if self._cuda:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self.device))
            self._sent[self._turn] = event
        self._turn = 1 - self._turn
        return [
            sent[start : start + array.nbytes].view(_torch_dtype(array.dtype)).reshape(array.shape)
            for start, array in zip(starts, arrays, strict=True)
        ]

    def receive(self, tensor: Tensor) -> np.ndarray:
        """Return the values of ``tensor``, once the device has computed them."""
        tensor = tensor.detach()
        if tensor.device.type != "cuda":
            return tensor.cpu().numpy()
        if (self._inbox.shape, self._inbox.dtype) != (tensor.shape, tensor.dtype):
            self._inbox = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._inbox.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(tensor.device).synchronize()
        return self._inbox.numpy().copy()  # the environments may keep it

    def _outbox(self, size: int) -> Tensor:
        """Return the buffer whose turn it is, once the device has read it."""
        event = self._sent[self._turn]
        if event is not None:
            event.synchronize()
        if self._outboxes[self._turn].numel() < size:
            # Twice the need: the number of final observations changes from step to step.
            self._outboxes[self._turn] = torch.empty(2 * size, dtype=torch.uint8, pin_memory=self._cuda)
        return self._outboxes[self._turn]


def _torch_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
