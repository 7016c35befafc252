"""What variational models share: what a decoder says of a picture, the bound that they learn by, and how it is judged.

The densities are those of tensorflow-probability, which takes seconds to import: that is done inside functions.
"""
