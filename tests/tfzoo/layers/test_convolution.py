"""A convolution is padded on both sides alike, as torch's is, whatever its stride."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tfzoo.layers.convolution import convolve


@pytest.mark.parametrize("side", [(8, 9), (7, 5)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("groups", [1, 2])
def test_it_is_torchs(check, side, stride, size, groups):
    with check.float64():
        image = keras.Input((*side, 4))
        model = keras.Model(image, convolve(image, 6, size, stride, "c_conv", "c_pad", groups=groups))
    check.randomize(model)
    kernel, bias = model.get_layer("c_conv").get_weights()
    x = check.images(2, *side, 4)
    weights = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()), torch.from_numpy(bias)
    expected = F.conv2d(check.first(x), *weights, stride, size // 2, groups=groups)
    np.testing.assert_allclose(check.first(np.asarray(model(x))), expected, rtol=0, atol=1e-12)
    padded = stride > 1 and size > 1
    assert [layer.name for layer in model.layers[1:]] == (["c_pad"] if padded else []) + ["c_conv"]
