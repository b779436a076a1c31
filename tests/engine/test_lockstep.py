"""Functions that run in turn, each as if alone."""

import random

import numpy as np
import pytest
import torch

from maxent_onpolicy.engine.lockstep import WAIT, Member, RandomState, run_in_lockstep


def draws(count: int) -> list[float]:
    return [random.random() + np.random.rand() + torch.rand(()).item() for _ in range(count)]


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def test_every_function_has_random_generators_of_its_own() -> None:
    def function(seed: int, member: Member) -> list[float]:
        seed_all(seed)
        values = draws(2)
        member.meet(None)
        values += draws(1)
        member.meet(None)
        return values + draws(1)

    members = run_in_lockstep([lambda m, s=seed: function(s, m) for seed in (1, 2, 3)], lambda requests: requests)

    for seed, member in zip((1, 2, 3), members, strict=True):
        seed_all(seed)
        assert member.result == draws(4)


def test_the_callers_generators_are_as_before() -> None:
    seed_all(7)
    expected = draws(1)
    seed_all(7)

    run_in_lockstep([lambda member: draws(5)] * 2, lambda requests: requests)

    assert draws(1) == expected


def test_requests_are_served_together_as_long_as_members_live() -> None:
    served: list[list[str]] = []

    def serve(requests: list[str]) -> list[str]:
        served.append(list(requests))
        return [request.upper() for request in requests]

    def function(name: str, times: int, member: Member) -> list[str]:
        return [member.meet(f"{name}{index}") for index in range(times)]

    members = run_in_lockstep([lambda m: function("a", 3, m), lambda m: function("b", 1, m)], serve)

    assert served == [["a0", "b0"], ["a1"], ["a2"]]
    assert [member.result for member in members] == [["A0", "A1", "A2"], ["B0"]]


def test_one_that_fails_leaves_the_others_alone() -> None:
    def good(member: Member) -> int:
        return member.meet(1) + member.meet(2)

    def bad(member: Member) -> None:
        member.meet(10)
        raise ValueError("no")

    members = run_in_lockstep([good, bad, good], lambda requests: requests)

    assert [member.result for member in members] == [3, None, 3]
    assert isinstance(members[1].error, ValueError)


def test_what_serving_raises_reaches_every_member() -> None:
    def serve(requests: list[int]) -> list[int]:
        raise MemoryError("too many")

    def function(member: Member) -> str:
        try:
            member.meet(0)
        except MemoryError as error:
            return str(error)
        return "served"

    members = run_in_lockstep([function] * 2, serve)

    assert [member.result for member in members] == ["too many"] * 2


def test_an_interrupt_ends_all_members() -> None:
    left: list[str] = []

    def interrupted(requests: list[int]) -> list[int]:
        raise KeyboardInterrupt

    def function(member: Member) -> None:
        try:
            member.meet(0)
        except Exception:
            left.append("swallowed")
        finally:
            left.append("left")

    with pytest.raises(KeyboardInterrupt):
        run_in_lockstep([function] * 3, interrupted)

    assert left == ["left"] * 3


def test_a_request_may_wait_for_those_of_others() -> None:
    def serve(requests: list[str]) -> list[object]:
        return [WAIT if request == "last" and len(set(requests)) > 1 else tuple(requests) for request in requests]

    def function(names: list[str], member: Member) -> list[object]:
        return [member.meet(name) for name in names]

    members = run_in_lockstep([lambda m: function(["last"], m), lambda m: function(["a", "b", "last"], m)], serve)

    assert members[0].result == [("last", "last")]
    assert members[1].result == [("last", "a"), ("last", "b"), ("last", "last")]


def test_draws_made_for_somebody_are_those_of_the_global_generator() -> None:
    torch.manual_seed(5)
    state = RandomState()
    generator = state.generator(torch.device("cpu"))
    drawn = torch.randn(7, generator=generator)
    state.advance(generator)

    assert torch.equal(torch.randn(7), drawn)
    following = torch.randn(3)
    torch.manual_seed(6)
    state.restore()
    assert torch.equal(torch.randn(3), following)
