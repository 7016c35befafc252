"""Figures of merit as Keras metrics: what was counted on several replicas adds up to what one device counts.

Every metric keeps sums, in variables of its own on each replica that are added up when they are read, and in float64,
which counts exactly to 9e15 where float32 stops at 1.7e7 (a thousand pictures' pixels). `docs/metrics.md` lists them.

Where nothing was counted yet, the result is 0, as with Keras' own metrics; those of generated pictures say NaN.
"""
