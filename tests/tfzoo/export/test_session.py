import numpy as np
import pytest

from tfzoo.export import session


def test_what_does_not_fit_is_named(version):
    with session.load(version) as (signatures, run):
        assert all(s.method_name == "tensorflow/serving/predict" for s in signatures.values())
        with pytest.raises(ValueError, match="no signature 'x'. Accepted: serving_bytes, serving_default"):
            run("x", {})
        with pytest.raises(ValueError, match="serving_default takes image. Received: picture"):
            run("serving_default", {"picture": np.zeros(1)})
