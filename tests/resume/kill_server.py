"""Starts commands quickly, so that hundreds can be killed: imports everything once, and forks for each.

Everything: otherwise most kills at random moments hit imports. Every optimizer imports ``torch._dynamo``.

Reads requests as lines of JSON: ``argv`` (of ``maxent-onpolicy``, or a Python script), ``folder`` and ``cut``. The
child works in the folder and writes its output to ``log.txt`` there. With ``cut`` = n it is killed by SIGKILL right
before it touches the ``n``-th file below the folder: opens one for writing, renames or removes one. Answers with the
child's process id, which is also that of its group, and, when it has ended, with its wait status and how many files it
has touched.
"""

import json
import mmap
import os
import runpy
import signal
import sys
import traceback
from typing import Any

import torch._dynamo.repro.after_dynamo
import torch._inductor.compile_fx  # noqa: F401

import maxent_onpolicy.algorithms.maxent_ppo
import maxent_onpolicy.cli.progress
import maxent_onpolicy.cli.runner
import maxent_onpolicy.cli.train
import maxent_onpolicy.envs.mujoco_batch
import maxent_onpolicy.tracking  # noqa: F401
from maxent_onpolicy.cli.main import main

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def watch(folder: str, cut: int | None, count: memoryview) -> None:
    """Count touched files from now on; at number ``cut``, end as a kill from outside would end this process."""

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            if not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
                return
        elif event not in _EVENTS:
            return
        if not os.path.abspath(str(arguments[0])).startswith(folder):
            return
        count[0] += 1
        if count[0] == cut:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def child(request: dict[str, Any], count: memoryview) -> int:
    """Run the command."""
    os.setpgid(0, 0)
    os.chdir(request["folder"])
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    watch(request["folder"], request["cut"], count)
    try:
        if request["argv"][0].endswith(".py"):
            runpy.run_path(request["argv"][0], run_name="__main__")
            return 0
        return main(request["argv"])
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        return 70


def serve() -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        count = memoryview(mmap.mmap(-1, 8)).cast("q")  # shared with the child
        pid = os.fork()
        if pid == 0:
            os._exit(child(request, count))
        os.setpgid(pid, pid)  # here too: whoever is told of the child may kill it before it has done anything
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": status, "touched": count[0]}), flush=True)


if __name__ == "__main__":
    serve()
