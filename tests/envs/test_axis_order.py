"""Observations lie in memory after a file as before it, in every version of NumPy."""

import numpy as np

from maxent_onpolicy.envs.axis_order import axis_order, in_axis_order


def channels_last():
    return np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3).transpose(0, 3, 1, 2)


def test_the_order_comes_back_with_the_same_values():
    image = channels_last()
    assert axis_order(image) == [0, 2, 3, 1]
    flat = np.ascontiguousarray(image)
    back = in_axis_order(flat, axis_order(image))
    assert flat.strides != image.strides
    assert back.strides == image.strides
    np.testing.assert_array_equal(back, image)


def test_dictionaries_and_what_is_no_array():
    observation = {"image": channels_last(), "vector": np.zeros((2, 3)), "none": None}
    order = axis_order(observation)
    assert order == {"image": [0, 2, 3, 1], "vector": [0, 1], "none": None}
    back = in_axis_order({**observation, "image": np.ascontiguousarray(channels_last())}, order)
    assert back["image"].strides == observation["image"].strides
    assert back["none"] is None


def test_files_without_an_order_and_other_shapes_stay_as_they_are():
    image = channels_last()
    assert in_axis_order(image, None) is image
    assert in_axis_order(image, [0, 1]) is image
