"""Another tensor in training than in inference: `if training:` in a layer's `call` -> `if self.training`.

Both are computed in either mode, as torch.export follows one alone. In a functional model Keras has nothing of the
kind: the way back is refused.
"""

from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation

OPERATORS = ("by_mode",)
KERAS = ("ops.ByMode",)
TORCH = ("ByMode",)
LAYOUT = anything
HELPERS = {
    "ByMode": '''
        class ByMode(nn.Module):
            """The first tensor in eval mode, the second in training mode."""

            def forward(self, told, trained):
                told_now = torch.full((), not self.training, dtype=torch.bool, device=told.device)
                return torch.where(told_now, told, trained)
        ''',
}


def read_keras(layer: KerasLayer) -> list[Node]:
    return [Node("by_mode", {}, name=layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    raise Unsupported(
        "it does something else in training mode", "let layers such as Dropout do so, or take it out of the module"
    )


def read_torch(call: TorchOperation) -> list[Node]:
    return [Node("by_mode", {}, name=call.path)]


def write_torch(node: Node) -> TorchCall:
    return TorchCall("{self}({0}, {1})", "ByMode()", helpers=("ByMode",))
