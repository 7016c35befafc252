"""Functions of keras.ops that are not carried, each with the reason and what to do instead.

What depends on the data in its shape, computes with complex numbers, or runs a function of the user's is no network of
layers in either framework. Others could be carried and are not yet; what is said of these is what carries today.
"""

from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasLayer

COMPLEX = ("it makes or takes complex numbers, which layers do not have", "compute with real and imaginary parts apart")
CALLS = ("it runs a function of the user's", "write it out, or use keras.ops.where and functions of whole tensors")
OPEN = ("the size of its result depends on the data", "use a mask and keras.ops.where")
CONSTANT = ("it makes a tensor of numbers alone", "make it beforehand, as a NumPy array")
IMAGES = (
    "there is no rule for it yet",
    "do it in the pipeline of the data, or write it in functions that `bridge rules` has",
)
WRITTEN = ("there is no rule for it yet", "write it in functions that `bridge rules` lists")
MISSING = ("it finds its places without NaN, how many there are depends on the data", "replace NaN before")

REASONS = {
    COMPLEX: ("Eig", "FFT", "FFT2", "IFFT2", "IRFFT", "ISTFT", "Polar", "RFFT", "STFT", "ViewAsComplex", "ViewAsReal"),
    CALLS: ("AssociativeScan", "Cond", "ForiLoop", "JVP", "Map", "Scan", "Switch", "VectorizedMap", "WhileLoop"),
    OPEN: ("Bincount", "Nonzero", "Unique"),
    CONSTANT: ("Arange", "Array", "Full", "Geomspace", "Linspace", "Logspace"),
    IMAGES: ("ElasticTransform", "MapCoordinates"),
    WRITTEN: ("ExtractSequences", "MatrixRank", "Rearrange"),
    MISSING: ("Nanmedian", "Nanpercentile", "Nanquantile"),
    ("CTC is a loss, not a layer", "compute it where the network is trained"): ("CTCDecode", "CTCLoss"),
    ("Keras 3.15 hands its padding and output_padding over in each other's place", "use a Conv2DTranspose layer"): (
        "ConvTranspose",
    ),
    ("what it makes is not determined", "use keras.ops.zeros_like"): ("EmptyLike",),
    ("Keras computes it in float64 and rounds, so that it changes no float32", "leave it out"): ("Nextafter",),
    ("it makes a number of the shape", "take it from x.shape, where the size is known"): ("Ndim", "Size"),
    ("its order is each framework's own", "use keras.ops.argsort"): ("Argpartition",),
    ("how it counts at the bounds is each framework's own", "count with keras.ops.digitize and one_hot"): (
        "Histogram",
    ),
    ("it looks at the same bits as another dtype", "use keras.ops.cast"): ("View",),
    ("a function that is called as a layer", "call it on the tensors"): ("Function",),
    ("what it returns is LAPACK's, pivots included", "use keras.ops.solve, inv or det"): ("LuFactor",),
}
REFUSED = {f"ops.{name}": reason for reason, names in REASONS.items() for name in names}

OPERATORS = ()
KERAS = tuple(REFUSED)
TORCH = ()
LAYOUT = anything


def read_keras(layer: KerasLayer) -> list[Node]:
    raise Unsupported(*REFUSED[layer.class_name])
