"""TensorBoard files as TensorBoard reads them."""

import numpy as np
import pytest
from stable_baselines3.common.logger import Image, TensorBoardOutputFormat
from stored import tensorboard, tensorboard_scalars

from maxent_onpolicy.tracking import TensorBoardFormat


def test_it_writes_what_the_format_of_sb3_writes(tmp_path):
    image = Image(np.full((4, 4, 3), 200, np.uint8), "HWC")
    values = {"a/b": 1.5, "n": 3, "t": "text", "h": np.arange(5), "i": image, "out": 1.0, "f": np.float32(0.25)}
    excluded = {**dict.fromkeys(values, ("stdout",)), "out": ("tensorboard",)}
    for name, output in (
        ("sb3", TensorBoardOutputFormat(str(tmp_path / "sb3"))),
        ("own", TensorBoardFormat(tmp_path / "own")),
    ):
        output.write(values, excluded, 10)
        output.write({"a/b": 2.5}, {"a/b": ()}, 20)
        output.close()
        assert tensorboard_scalars(tmp_path / name) == {
            "a/b": [(10, 1.5), (20, 2.5)],
            "n": [(10, 3.0)],
            "f": [(10, 0.25)],
        }
    theirs, ours = (tensorboard(tmp_path / name).Tags() for name in ("sb3", "own"))
    assert theirs == ours
    assert ours["images"] == ["i"]
    assert ours["distributions"] == ["h"]


def test_settings_are_shown(tmp_path):
    output = TensorBoardFormat(tmp_path, {"hyperparameters": {"tau": 0.02, "net": [64, 64]}, "env_id": "X-v0"})
    output.close()
    accumulator = tensorboard(tmp_path)
    assert '"tau": 0.02' in accumulator.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    content = accumulator.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"hyperparameters.tau" in content
    assert b"X-v0" in content


@pytest.mark.parametrize(("resumed_at", "kept"), [(200, [100, 200]), (0, [])])
def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path, resumed_at, kept):
    first = TensorBoardFormat(tmp_path, resumed_at=0)
    for step in (100, 200, 300):
        first.write({"a": 1.0}, {"a": ()}, step)
    first.close()
    second = TensorBoardFormat(tmp_path, resumed_at=resumed_at)
    second.write({"a": 2.0}, {"a": ()}, 300)
    second.close()
    assert tensorboard_scalars(tmp_path)["a"] == [*((step, 1.0) for step in kept), (300, 2.0)]
