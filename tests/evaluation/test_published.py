"""Published returns stand beside those of the same algorithm, task and number of steps, and beside no others."""

import pytest

from maxent_onpolicy.evaluation.published import load_published, published_table
from maxent_onpolicy.evaluation.report import build_sections
from maxent_onpolicy.evaluation.scores import load_results
from maxent_onpolicy.evaluation.tables import Bootstrap

FEW = Bootstrap(resamples=50)
MILLION = (0, 500_000, 1_000_000)


def test_published_returns_stand_beside_ours(make_run):
    for label in ("MaxEntPPO", "PPO"):
        for seed in range(3):
            make_run(label, "Hopper-v5", seed, final=2000.0 + 100 * seed, noise=0.0, checkpoints=MILLION)
    make_run("SAC", "Humanoid-v5", algorithm="SAC", checkpoints=MILLION)
    make_run("SAC", "Custom-v5", algorithm="SAC", checkpoints=MILLION)
    make_run("GRPO", "Hopper-v5", algorithm="GRPO", checkpoints=MILLION)
    results = load_results(make_run.results)
    table = published_table(results, FEW)
    found = table.data.set_index(["environment", "algorithm"])
    assert list(found.index) == [("Hopper-v5", "MaxEntPPO"), ("Hopper-v5", "PPO"), ("Humanoid-v5", "SAC")]
    row = found.loc[("Hopper-v5", "PPO")]
    assert row[["return", "RL Zoo", "RL Zoo ±", "CleanRL", "CleanRL ±"]].tolist() == [2100, 2410, 10, 2383, 272]
    assert found["published_algorithm"].tolist() == ["PPO", "PPO", "SAC"]
    text = table.text.set_index("Algorithm")
    assert text.loc["SAC", ["RL Zoo", "CleanRL"]].tolist() == ["–", "4,996 ± 686"]
    assert text.loc["PPO", "Tianshou"] == "2,609 ± 701"
    assert "best evaluation of the training" in table.caption
    blocks = [block.name for section in build_sections(results, FEW) for block in section.blocks]
    assert "published" in blocks


@pytest.mark.parametrize(("checkpoints", "env_id"), [((0, 500_000), "Hopper-v5"), (MILLION, "CartPole-v1")])
def test_other_lengths_and_tasks_have_none(make_run, checkpoints, env_id):
    make_run("PPO", env_id, checkpoints=checkpoints)
    assert published_table(load_results(make_run.results), FEW) is None


def test_every_source_says_how_it_was_measured():
    for source in load_published():
        assert source["name"]
        assert source["protocol"]
        assert source["source"]
        assert source["timesteps"] == 1_000_000
        for algorithms in source["returns"].values():
            assert set(algorithms) <= {"PPO", "TRPO", "SAC"}
            assert all(len(pair) == 2 for pair in algorithms.values())
