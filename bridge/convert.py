"""Whole models: keras.Model -> torch.nn.Module and back."""

import contextlib
import warnings
from dataclasses import replace

from bridge import layout, naming, rules
from bridge.graph import BridgeError
from bridge.progress import log


def to_torch(model, exact_training: bool = False, names: "naming.Table | None" = None):
    """Convert a Keras model to a torch module with its weights.

    Args:
        model: A functional or Sequential `keras.Model`; float tensors of rank 4 and 5 are channels-last.
        exact_training: Use helper classes where torch's own module trains by another rule than Keras' layer: the
            running variance of BatchNorm. By default torch's own modules are used; inference is the same.
        names: Another project's names of the modules, such as `tfzoo.resnet.NAMES["torchvision"]`; `bridge.naming` has
            what a table is. The state dict then loads there. By default they are those of Keras' layers.

    Returns:
        A `torch.nn.Module` in eval mode: generated source, executed. Its tensors of rank 4 and 5 are
        channels-first; tensors of other ranks keep their order.

    Raises:
        BridgeError: Lists every layer that cannot be carried.
    """
    from bridge import torch_writer

    return torch_writer.build(source(model, exact_training, names))


def source(model, exact_training: bool = False, names: "naming.Table | None" = None):
    """Write a Keras model as torch source; see `bridge.torch_writer.TorchSource`."""
    from bridge import keras_reader, torch_writer

    log.info("%s: converting it to torch", getattr(model, "name", model))
    graph = layout.convert(naming.rename(keras_reader.read(model), names or {}), "first")
    if exact_training:
        graph.nodes = [
            replace(n, attributes={**n.attributes, "exact": True})
            if getattr(rules.for_operator(n.operator), "EXACT", False)
            else n
            for n in graph.nodes
        ]
    return torch_writer.write(graph)


def to_keras(module, example_inputs: tuple, dynamic: "list[set[int]] | None" = None):
    """Convert a torch module to a functional Keras model with its weights.

    Args:
        module: A `torch.nn.Module` that torch.export can follow; tensors of rank 4 and 5 are channels-first.
        example_inputs: Tensors as for a call of the module.
        dynamic: For each input the axes that stay open; by default the batch (axis 0) alone.

    Returns:
        A `keras.Model`, channels-last, with real layers named after the modules.

    Raises:
        BridgeError: Lists every operator that cannot be carried, and every module that does in training mode what it
            does not in eval mode, other than Dropout and BatchNorm do.
    """
    from bridge import keras_writer, other_sizes, torch_export, torch_reader, training_mode

    log.info("%s: converting it to Keras", type(module).__name__)
    program = torch_export.export(module, example_inputs, dynamic)
    training = training_mode.look(module, example_inputs, dynamic)

    def convert(tied: bool):
        graph = torch_reader.read(module, example_inputs, dynamic, program=program, tied=tied, training=training)
        laid_out = layout.convert(graph, "last")
        notes = []
        if unused := torch_reader.unused(module, graph.nodes):
            notes.append(torch_reader.said_unused(unused))
        if twice := torch_reader.second_biases(module, graph.parameters):
            notes.append(torch_reader.said_twice(twice))
        return keras_writer.write(laid_out), laid_out, notes

    try:
        made = convert(tied=False)
    except BridgeError as e:
        made = None
        with contextlib.suppress(BridgeError):
            made = convert(tied=True)
        if made is None:
            raise e
    model, laid_out, left = made
    dynamic = dynamic or torch_export.every_batch(example_inputs)
    if fixed := torch_export.fixed_axes(program, dynamic):
        other_sizes.refuse(module, model, laid_out, example_inputs, fixed)
    found = other_sizes.notes(module, model, laid_out, example_inputs, dynamic, program)
    for note in [*training.notes, *found, *left]:
        warnings.warn(note, stacklevel=2)
    return model
