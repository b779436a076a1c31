"""Contact forces of a batch are those that ``mj_rnePostConstraint`` computes for single simulations."""

import gc
import os
import sys

import mujoco
import numpy as np
import pytest

from maxent_onpolicy.envs.mujoco_batch.forces import ContactForceBatch

FIELDS = ("time", "qpos", "xfrc_applied", "xpos", "cfrc_ext", "cfrc_int", "cacc")


def falling_boxes(memory="1M"):
    boxes = (f'<body pos="{x} 0 0.3"><freejoint/><geom type="box" size="0.1 0.1 0.1"/></body>' for x in range(3))
    world = f'<worldbody><geom type="plane" size="1 1 1"/>{"".join(boxes)}</worldbody>'
    return mujoco.MjModel.from_xml_string(f'<mujoco><size memory="{memory}"/>{world}</mujoco>')


@pytest.mark.parametrize("num_threads", [1, 2])
def test_equals_single_simulations(num_threads):
    model = falling_boxes()
    batch = ContactForceBatch(model, 4, num_threads)
    fields = {name: batch.bind(name) for name in FIELDS}
    singles = [mujoco.MjData(model) for _ in range(4)]
    for index, single in enumerate(singles):
        single.qpos[2] = batch.bind("qpos")[index, 2] = 0.2 + 0.1 * index
    touched = 0
    for step in range(60):
        if step == 40:
            batch.reset(np.array([1, 3], dtype=np.int32))
            for index in (1, 3):
                mujoco.mj_resetData(model, singles[index])
                mujoco.mj_forward(model, singles[index])
        else:
            batch.step(nstep=5)
            for single in singles:
                mujoco.mj_step(model, single, 5)
                mujoco.mj_rnePostConstraint(model, single)
        for index, single in enumerate(singles):
            for name in FIELDS:
                np.testing.assert_array_equal(fields[name][index], getattr(single, name), err_msg=name)
            touched += np.any(single.cfrc_ext)
    assert touched > 50


def test_fields_may_be_empty():
    model = falling_boxes()
    batch, single = ContactForceBatch(model, 2, 1), mujoco.MjData(model)
    for name in ("ctrl", "act", "mocap_pos", "sensordata"):
        assert batch.bind(name).shape == (2, *getattr(single, name).shape)


def test_an_error_of_mujoco_is_raised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its errors to a file
    batch = ContactForceBatch(falling_boxes(memory="28K"), 3, 2)
    batch.step()
    batch.bind("qpos")[1, [2, 9, 16]] = 0.09  # contacts need memory that this model does not have
    with pytest.raises(mujoco.FatalError, match="out of memory"):
        batch.step()


def test_callbacks_in_python_are_refused():
    model = falling_boxes()
    mujoco.set_mjcb_control(lambda model, data: None)
    try:
        with pytest.raises(ValueError, match="mjcb_control is a Python function"):
            ContactForceBatch(model, 2, 2)
    finally:
        mujoco.set_mjcb_control(None)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_arrays_keep_what_they_look_at():
    def count():
        gc.collect()  # also those of other tests
        return len(os.listdir("/proc/self/task"))

    before = count()
    batch = ContactForceBatch(falling_boxes(), 3, 3)
    batch.step()
    positions, heights = batch.bind("xpos"), batch.bind("qpos")[:, 2]
    expected = positions.copy()
    del batch
    assert count() == before + 2
    np.testing.assert_array_equal(positions, expected)
    del positions
    assert count() == before + 2
    np.testing.assert_allclose(heights, 0.3, atol=1e-3)
    del heights
    assert count() == before
