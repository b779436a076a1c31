"""verl, if it is there, and whether it is a version that this was tested with."""

from maxent_onpolicy.llm.hosts import check_host

TESTED = ("0.9.0", "0.9.1")  # the first and the last


def check_verl() -> None:
    """See :func:`~maxent_onpolicy.llm.hosts.check_host`."""
    check_host("verl", "verl", "llm-verl", TESTED, "this builds on what verl gives to a policy loss")
