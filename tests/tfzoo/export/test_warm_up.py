import numpy as np

from tfzoo.export import warm_up


def test_requests_come_back(tmp_path):
    inputs = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "file": np.array([b"\0\xff", b""], object)}
    warm_up.write(tmp_path, [warm_up.request("m", "one", inputs), warm_up.request("m", "two", {})])
    assert (tmp_path / "assets.extra" / "tf_serving_warmup_requests").is_file()
    (one, back), (two, nothing) = warm_up.read(tmp_path)
    assert (one, two, nothing) == ("one", "two", {}) and back.keys() == inputs.keys()
    for name, value in inputs.items():
        np.testing.assert_array_equal(back[name], value)
        assert back[name].dtype == value.dtype
