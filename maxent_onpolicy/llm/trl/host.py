"""TRL, if it is there, and whether it is a version that this was tested with."""

from maxent_onpolicy.llm.hosts import check_host

TESTED = ("1.16.0", "1.16.0")  # the first and the last


def check_trl() -> None:
    """See :func:`~maxent_onpolicy.llm.hosts.check_host`."""
    check_host("TRL", "trl", "llm", TESTED, "the trainer builds on how GRPOTrainer computes its loss")
