from tfzoo.export import configs


def test_names_cannot_break_out():
    assert '"a\\"b"' in configs.models('a"b')


def test_what_was_changed_by_hand_stays(tmp_path):
    configs.write(tmp_path, "unet", None)
    assert "allowed_batch_sizes" not in (tmp_path / "batching.config").read_text()
    (tmp_path / "monitoring.config").write_text("mine")
    (tmp_path / "batching.config").write_text("mine")
    configs.write(tmp_path, "unet", None)
    assert (tmp_path / "monitoring.config").read_text() == (tmp_path / "batching.config").read_text() == "mine"
    configs.write(tmp_path, "unet", 8)  # without it no request of fewer examples would be answered
    assert "max_batch_size { value: 8 }" in (tmp_path / "batching.config").read_text()
