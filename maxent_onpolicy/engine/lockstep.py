"""Several trainings in one process, one at a time, each as if it were alone, that meet for what they do together.

Every training keeps its own control flow (SB3's ``learn``, callbacks, logger,
evaluation) in a thread of its own. Threads are used as coroutines only: exactly
one runs at any time, with the random generators as it left them. Where a training
has work that can be done for all at once it meets the others; when all that are
still alive have met, the work is done and each goes on with its part of the result.
"""

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Serve = Callable[[list[Any]], Sequence[Any]]
# A reply: ask again when the others have met once more.
WAIT = object()


class RandomState:
    """The state of Python's, numpy's and torch's global generators.

    Reading and writing it takes some twenty microseconds.
    """

    def __init__(self) -> None:
        self.capture()

    def capture(self) -> None:
        """Take over the state of the generators."""
        self._python = random.getstate()
        self._numpy = np.random.get_state(legacy=False)  # noqa: NPY002 - SB3 draws from the global generator
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore(self) -> None:
        """Put the state of the generators back."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)

    def generator(self, device: torch.device) -> torch.Generator:
        """Return a generator that draws what torch's global one of the device would, from this state on."""
        generator = torch.Generator(device)
        generator.set_state(self._torch if device.type == "cpu" else self._cuda[_index(device)])
        return generator

    def advance(self, generator: torch.Generator) -> None:
        """Take over how far a generator from :meth:`generator` has come."""
        if generator.device.type == "cpu":
            self._torch = generator.get_state()
        else:
            self._cuda[_index(generator.device)] = generator.get_state()


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


class Aborted(BaseException):
    """Raised inside a member when the whole is given up; no ``except Exception`` must keep it."""


class Member:
    """One of the functions, as it sees the others.

    Args:
        function: is called with this object, in a thread of its own.
    """

    def __init__(self, function: "Callable[[Member], Any]") -> None:
        self._function = function
        #: The global generators as this one left them.
        self.random = RandomState()
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._aborted = False
        self._reply: Any = None
        self.request: Any = None
        self.waiting = False
        self.ended = False
        self.result: Any = None
        self.error: BaseException | None = None

    def meet(self, request: Any) -> Any:
        """Wait until every member that has not ended has called this; return this one's part of the result.

        Args:
            request: what is to be done for this member.

        Raises:
            Exception: what doing it raised.
        """
        self.request, self.waiting = request, True
        self._back.release()
        self._go.acquire()
        self.waiting, self.request = False, None
        if self._aborted:
            raise Aborted
        reply, self._reply = self._reply, None
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def resume(self, reply: Any = None) -> None:
        """Let the function run until it meets or ends; called by the thread that owns all members."""
        self._reply = reply
        self.random.restore()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self._back.acquire()
        self.random.capture()

    def abort(self) -> None:
        """Make the function leave where it waits; does nothing if it has not begun or has ended."""
        self._aborted = True
        if self.waiting:
            self.resume()

    def _run(self) -> None:
        try:
            self.result = self._function(self)
        except BaseException as error:
            self.error = error
        finally:
            self.ended = True
            self._back.release()


def run_in_lockstep(functions: Sequence[Callable[[Member], Any]], serve: Serve) -> list[Member]:
    """Run functions in turn until all have ended.

    The caller's random state is the same afterwards; every function starts with it.

    Args:
        functions: each is called with its :class:`Member`.
        serve: given the requests of all members that are waiting, in order, returns a reply for each, for some of
            them perhaps ``WAIT``. What it raises is raised in all of them.

    Returns:
        The members, ended: each with its ``result``, or its ``error``.
    """
    caller = RandomState()
    members = [Member(function) for function in functions]
    try:
        for member in members:
            member.resume()
        while waiting := [member for member in members if member.waiting]:
            try:
                replies = serve([member.request for member in waiting])
            except Exception as error:
                replies = [error] * len(waiting)
            for member, reply in zip(waiting, replies, strict=True):
                if reply is not WAIT:
                    member.resume(reply)
    except BaseException:
        for member in members:
            member.abort()
        raise
    finally:
        caller.restore()
    return members
