"""torchvision's networks, as modules, into tfzoo's and back: without a table of names, and confirmed by running."""

import pytest
import torch

import bridge
import tfzoo
from bridge.onnx import import_torchvision

models = import_torchvision().models
NETWORKS = {
    "resnet50": (
        lambda: models.resnet50(num_classes=7),
        lambda: tfzoo.build("resnet", "50", classes=7, image_shape=(32, 32, 3)),
    ),
    "googlenet": (
        lambda: models.googlenet(num_classes=7, aux_logits=False, init_weights=False),
        lambda: tfzoo.build("googlenet", "torchvision", classes=7, image_shape=(48, 48, 3)),
    ),
    "vit": (
        lambda: models.VisionTransformer(32, 16, 2, 3, 24, 48, num_classes=7),
        lambda: tfzoo.build(
            "vit", "b16", classes=7, image_shape=(32, 32, 3), width=24, depth=2, heads=3, mlp_ratio=2.0
        ),
    ),
}


def live(module):
    """Give every weight a value, with statistics under which the output depends on the picture."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator)
            if "var" in name:
                drawn = drawn.abs() + 0.5
            elif value.ndim == 1 and name.endswith("weight"):
                drawn = 1 + 0.1 * drawn
            elif value.ndim > 1:
                drawn = drawn * (2 / value[0].numel()) ** 0.5
            value.copy_(drawn)
    return module.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_there_and_back(name):
    theirs, build = NETWORKS[name]
    module, model = live(theirs()), build()
    bridge.load_weights(model, module)
    again = theirs().eval()
    bridge.load_weights(again, model)
    again.load_state_dict(module.state_dict(), strict=True)
    other = theirs().eval()
    bridge.load_weights(other, model)
    for (key, a), b in zip(other.state_dict().items(), module.state_dict().values(), strict=True):
        assert key.endswith("num_batches_tracked") or torch.equal(a, b), key
