"""Where the runs of a benchmark are carried out: in processes here, as jobs of a cluster, as tasks of Ray."""

from importlib import import_module

from maxent_onpolicy.cli.launchers.base import Launcher, Request
from maxent_onpolicy.cli.values import UsageError
from maxent_onpolicy.validation import did_you_mean

# imported on use: each needs its own package
LAUNCHERS = {
    "local": "maxent_onpolicy.cli.launchers.local.LocalLauncher",
    "submitit": "maxent_onpolicy.cli.launchers.submitit_launcher.SubmititLauncher",
    "ray": "maxent_onpolicy.cli.launchers.ray_launcher.RayLauncher",
}


def make_launcher(name: str, request: Request) -> Launcher:
    """Return the launcher called ``name``.

    Raises:
        UsageError: if there is none, its package is missing, or it does not understand an option.
    """
    if name not in LAUNCHERS:
        known = ", ".join(LAUNCHERS)
        raise UsageError(f"unknown --launcher {name!r}{did_you_mean(name, LAUNCHERS)}; there are: {known}")
    module, _, cls = LAUNCHERS[name].rpartition(".")
    launcher: Launcher = getattr(import_module(module), cls)(request)
    return launcher
