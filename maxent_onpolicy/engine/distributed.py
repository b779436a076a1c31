"""Several processes that train one model: who they are, what they exchange, and who of them died.

``torchrun`` starts ``N`` processes, *ranks*, and tells each its number in the
environment. Outside of it there is one rank and nothing here does anything. All
communication goes through this module, so that a rank that is lost is named.
"""

import atexit
import os
import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from maxent_onpolicy.engine.host_exchange import HostExchange, make_file

# While rank 0 evaluates or writes a checkpoint, the others wait for it.
TIMEOUT = timedelta(minutes=30)
# Floating-point operations that a rank must be spared for an exchange of gradients to pay. On two busy cores, one of
# 12,000 numbers took 0.1 ms through shared memory and 0.5 ms through gloo in the mean (0.02 and 0.13 at best); a core
# does some 4e10 operations a second. That for CUDA is an estimate.
WORTH_SPLITTING = {"memory": 1.0e7, "cpu": 1.0e8, "cuda": 2.0e9}
_FAILED = "maxent_onpolicy/failed/"


class RankFailedError(RuntimeError):
    """Another process of this training died or stopped answering."""


@dataclass(frozen=True)
class World:
    """The processes that train one model.

    Attributes:
        rank: number of this one; rank 0 logs, evaluates and saves.
        size: how many there are.
        local_rank: number among those on this machine, which is the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def share(self, n_envs: int) -> int:
        """Return how many of ``n_envs`` environments, counted over all ranks, are this rank's.

        Raises:
            ValueError: if they cannot be divided evenly.
        """
        if n_envs % self.size:
            raise ValueError(
                f"`n_envs` counts the environments of all {self.size} processes together and must be a multiple of "
                f"{self.size}; got {n_envs}"
            )
        return n_envs // self.size

    def part(self, count: int) -> slice:
        """Return which of ``count`` samples this rank computes; parts differ by one sample at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)


def world() -> World:
    """Return the ranks that ``torchrun`` started, or those of a process group that the program made itself."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    # Not the variables alone: schedulers set some of them for programs that know nothing of each other.
    if dist.is_available() and dist.is_torchelastic_launched():
        return World(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    return World()


def worth_splitting(policy: nn.Module, samples: int, images: bool) -> bool:
    """Return whether the ranks should split a minibatch and add up their gradients.

    Where networks are small, an exchange takes longer than the whole minibatch, and every rank computes all of it. The
    result is the same, and so is the choice on every rank and in every run, for it depends on sizes and the kind of
    connection alone.

    Args:
        policy: what is trained.
        samples: of a minibatch.
        images: whether it sees images, so that its operations are many more than its parameters tell.
    """
    ranks = world()
    if ranks.size == 1:
        return False
    parameters = list(policy.parameters())
    # Forward pass 2, backward pass 4 operations for each parameter and sample.
    operations = 6.0 * sum(parameter.numel() for parameter in parameters) * samples
    saved = operations * (1 - 1 / ranks.size)
    way = "cuda" if parameters[0].device.type != "cpu" else "cpu" if _connection.host is None else "memory"
    return images or saved > WORTH_SPLITTING[way]


def use_own_gpu(device: torch.device) -> None:
    """Make ``"cuda"`` mean this rank's GPU.

    Raises:
        ValueError: if this machine has fewer GPUs than ranks.
    """
    ranks = world()
    if ranks.size == 1 or device.type != "cuda" or device.index is not None:
        return
    if ranks.local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"`device='cuda'`: process {ranks.local_rank} of this machine has no GPU of its own, there are "
            f"{torch.cuda.device_count()}; start as many processes as GPUs, or use device='cpu'"
        )
    torch.cuda.set_device(ranks.local_rank)


@dataclass
class _Connection:
    """What is known of the other processes, for messages.

    Attributes:
        store: where a rank that fails leaves the reason, if this module made the process group.
        processes: host and process id of every rank.
        host: for small arrays on the CPU, if all ranks are on one machine.
    """

    store: dist.Store | None = None
    processes: tuple[tuple[str, int], ...] = ()
    host: HostExchange | None = None


_connection = _Connection()


def connect() -> World:
    """Join the other ranks, once: gloo for tensors on the CPU, NCCL for those on a GPU."""
    ranks = world()
    if ranks.size == 1 or _connection.processes:
        return ranks
    if not dist.is_initialized():
        from torch.distributed.rendezvous import rendezvous

        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        _connection.store, rank, size = next(rendezvous("env://", ranks.rank, ranks.size, timeout=TIMEOUT))
        store = dist.PrefixStore("process group", _connection.store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        if backend == "gloo":
            # After an exception nobody else does: gloo's threads then outlive the interpreter, and now and then one
            # that sees another rank leave ends the process by SIGABRT instead of its exit status.
            atexit.register(disconnect)
    _connection.processes = tuple(gather_objects((socket.gethostname(), os.getpid())))
    _connection.host = _share_memory(ranks)
    return ranks


def _share_memory(ranks: World) -> HostExchange | None:
    """Return an exchange by shared memory if all ranks can reach it."""
    here = len({host for host, _ in _connection.processes}) == 1
    path = broadcast_object(make_file(ranks.size) if ranks.rank == 0 and here else None)
    if path is None:
        return None
    exchange = None
    with suppress(OSError):  # containers may share a name, but no memory
        exchange = HostExchange(path, ranks.rank, ranks.size, check_others)
    reached = all(gather_objects(exchange is not None))
    if ranks.rank == 0:
        path.unlink()  # the memory stays until the last process leaves it
    return exchange if reached else None


def disconnect() -> None:
    """Leave the other ranks, after training."""
    if _connection.store is not None and dist.is_initialized():
        dist.destroy_process_group()
        _connection.store, _connection.processes, _connection.host = None, (), None


def gather(tensor: Tensor, dim: int = 0) -> Tensor:
    """Return the ranks' tensors, all of one shape, concatenated in the order of the ranks."""
    own = tensor.detach().contiguous()
    parts = [torch.empty_like(own) for _ in range(world().size)]
    _communicate(dist.all_gather, parts, own)
    return torch.cat(parts, dim)


def gather_rows(rows: Tensor) -> Tensor:
    """Return the ranks' tensors ``[B, ...]`` as one ``[n, ...]``; for few rows and often."""
    host = _host_for(rows)
    if host is None:
        return gather(rows)
    return torch.from_numpy(host.exchange(rows.numpy()).reshape(-1, *rows.shape[1:]).copy())


def gather_objects(value: Any) -> list[Any]:
    """Return every rank's ``value``, which is pickled on the way."""
    values: list[Any] = [None] * world().size
    _communicate(dist.all_gather_object, values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """Return rank 0's ``value``, which is pickled on the way."""
    values = [value]
    _communicate(dist.broadcast_object_list, values)
    return values[0]


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of rank 0, in one exchange for all of a kind."""
    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach())
    for same in kinds.values():
        together = torch.cat([tensor.reshape(-1) for tensor in same])
        _communicate(dist.broadcast, together, 0)
        for tensor, part in zip(same, together.split([tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(part.view_as(tensor))


def add_up(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over the ranks, bit for bit the same on all of them; return it."""
    host = _host_for(tensor)
    if host is None:
        _communicate(dist.all_reduce, tensor)
    else:
        np.add.reduce(host.exchange(tensor.numpy()), axis=0, out=tensor.numpy())
    return tensor


def _host_for(tensor: Tensor) -> HostExchange | None:
    host = _connection.host
    if host is None or tensor.device.type != "cpu" or tensor.requires_grad or not host.fits(tensor.numpy()):
        return None
    return host


def add_up_gradients(policy: nn.Module, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace the gradients by their sums over the ranks, in one exchange, and return the sums of the metrics.

    Args:
        policy: whose parameters hold this rank's share of the gradient.
        metrics: scalars, this rank's share of each.
    """
    gradients = [parameter.grad for parameter in policy.parameters() if parameter.grad is not None]
    parts = [
        *(gradient.flatten() for gradient in gradients),
        torch.stack([value.float() for value in metrics.values()]),
    ]
    sums = add_up(torch.cat(parts)).split([part.numel() for part in parts])
    for gradient, part in zip(gradients, sums, strict=False):
        gradient.copy_(part.view_as(gradient))
    return dict(zip(metrics, sums[-1], strict=True))


def share_generators() -> None:
    """Give every rank the random generators of rank 0, so that all draw the same numbers."""
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    own = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002 - SB3's generator
    python, numpy, cpu, gpu = broadcast_object((*own, torch.cuda.get_rng_state() if cuda else None))
    if world().rank == 0:
        return
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(cpu)
    if gpu is not None and cuda:
        torch.cuda.set_rng_state(gpu)


def separate_generators() -> None:
    """After :func:`share_generators`: give every rank a stream of its own in torch, which the next sharing ends."""
    seed = int(torch.randint(2**62, ()))
    torch.manual_seed(seed + world().rank)


@contextmanager
def reporting_failure() -> Iterator[None]:
    """Tell the other ranks why this one fails, so that they can say it too."""
    try:
        yield
    except RankFailedError:
        raise
    except Exception as error:
        if _connection.store is not None:
            with suppress(RuntimeError):  # the store died with another rank, which has something to say too
                _connection.store.set(f"{_FAILED}{world().rank}", f"{type(error).__name__}: {error}")
        raise


def check_others() -> None:
    """Raise if another rank has failed or died.

    Raises:
        RankFailedError: naming it.
    """
    others = [rank for rank in range(len(_connection.processes)) if rank != world().rank]
    if _reported_failures(others) or _dead(others):
        raise RankFailedError(_who_failed(0.0))


def _dead(others: list[int]) -> list[int]:
    known = len(_connection.processes)
    return [rank for rank in others if rank < known and not _alive(*_connection.processes[rank])]


def _communicate(operation: Callable[..., Any], *arguments: Any) -> None:
    started = time.monotonic()
    try:
        operation(*arguments)
    except RuntimeError as error:
        raise RankFailedError(_who_failed(time.monotonic() - started)) from error


def _who_failed(waited: float) -> str:
    """Return a message on the rank whose failure ended a communication."""
    ranks = world()
    start = f"rank {ranks.rank} of {ranks.size} cannot go on: "
    others = [rank for rank in range(ranks.size) if rank != ranks.rank]
    reported = _reported_failures(others)
    if reported:
        return start + "; ".join(reported) + ". Its traceback is in its own output, above or below this one"
    dead = _dead(others)
    if dead:
        names = "; ".join(f"rank {rank} (process {_connection.processes[rank][1]})" for rank in dead)
        return (
            f"{start}{names} died without a word: killed, out of memory or ended by a signal. Look at its own output, "
            "at the exit code that torchrun reports, and in the system's log for the process"
        )
    suspects = ", ".join(
        f"{rank} on {_connection.processes[rank][0]}" if rank < len(_connection.processes) else str(rank)
        for rank in others
    )
    return (
        f"{start}the connection to another rank ({suspects}) failed after {waited:.0f} s of waiting (the limit is "
        f"{TIMEOUT.total_seconds():.0f} s). The first failure in the list that torchrun prints is the cause"
    )


def _reported_failures(others: list[int]) -> list[str]:
    store = _connection.store
    if store is None:
        return []
    try:
        return [
            f"rank {rank} failed with {store.get(f'{_FAILED}{rank}').decode()}"
            for rank in others
            if store.check([f"{_FAILED}{rank}"])
        ]
    except RuntimeError:  # the store was in the process that died
        return []


def _alive(host: str, process: int) -> bool:
    """Whether a process runs; taken to be so where it cannot be known. A zombie does not run."""
    if host != socket.gethostname():
        return True
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except OSError:
        return os.path.exists(f"/proc/{process}") or not os.path.exists("/proc/self")
