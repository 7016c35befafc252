"""What a normalizing flow is made of: every file is one kind of step, with the same functions.

    parameters(x, ...)             the layers: from what the step is given `(B, D)` to what it is done with, each (B, D)
    forward(x, *parameters)        from the data's side to the noise's: `(B, D)` and log |det dy/dx| `(B,)`
    inverse(y, given)              the way back; `given` is a function from x to the parameters

`parameters` and `forward` are of `keras.ops`, so that a step is a part of a functional model; of the inverses that of
`coupling` alone is, as the others go round in a loop or need float64.
"""
