"""Windows of recordings: the right samples, whole recordings in one part, and everything that is wrong."""

import itertools

import numpy as np
import pytest
import soundfile

import tfzoo.data
from tfzoo.data.sources import audio_folder

RATE = 8000


def write(path, start, count, channels=1, rate=RATE, subtype="PCM_16"):
    """A ramp of 16-bit values, so that each sample says where it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = (np.arange(start, start + count) % 30_000).astype(np.int16)
    soundfile.write(path, np.repeat(ramp[:, None], channels, 1), rate, subtype=subtype)


def values(part):
    return [np.round(window * 2**15).astype(int) for (window,) in part]


def refusal(folder, **options):
    with pytest.raises(ValueError) as error:
        tfzoo.data.open(str(folder), "audio", seed=0, **options)
    return str(error.value)


def test_windows_hold_the_right_samples_and_no_recording_is_in_two_parts(tmp_path):
    starts = {}
    for n in range(10):
        ending, channels = (".flac", 2) if n % 2 else (".wav", 1)
        starts[n] = 1000 * n
        write(tmp_path / ("deep" if n % 3 else ".") / f"{n}{ending}", 1000 * n, 130 + n, channels)
    source = tfzoo.data.open(str(tmp_path), "audio", seed=0, window=60)
    parts = [values(part) for part in (source.training, source.validation, source.held_out)]
    assert [len(part) for part in parts] == [12, 4, 4]  # two windows of each recording
    met = sorted(int(window[0]) for part in parts for window in part)
    assert met == sorted(1000 * n + offset for n in range(10) for offset in (0, 60))
    for window in itertools.chain(*parts):
        np.testing.assert_array_equal(window, np.arange(window[0], window[0] + 60))
    recordings = [{window[0] // 1000 for window in part} for part in parts]
    assert sum(len(some) for some in recordings) == 10
    assert source.training[0][0].dtype == np.float32
    assert source.description.endswith(
        "6 recordings to train on, 2 for validation, 2 held out; 12, 4, 4 windows of 60 samples at 8000 Hz"
    )


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([[0.5, 0.25], [-0.5, 0.0]]), RATE, subtype="FLOAT")
    stretch = audio_folder.Stretch(tmp_path / "a.wav", 0, 2, RATE)
    np.testing.assert_array_equal(audio_folder.read(stretch, 2), np.float32([0.375, -0.25]))


def test_one_long_recording_is_cut_in_time(tmp_path):
    write(tmp_path / "long.flac", 0, 5000)
    source = tfzoo.data.open(str(tmp_path), "audio", seed=0, window=100)
    parts = [
        sorted(int(window[0]) for window in values(part))
        for part in (source.training, source.validation, source.held_out)
    ]
    assert [len(part) for part in parts] == [30, 10, 10] and sorted(itertools.chain(*parts)) == list(
        range(0, 5000, 100)
    )
    assert len({start // 500 for start in parts[2]}) == 2  # two whole tenths


def test_a_window_is_read_without_what_is_before_it(tmp_path, monkeypatch):
    write(tmp_path / "long.wav", 0, 100_000)
    asked = []
    real = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, frames=-1, *a, **k: (asked.append(frames), real(self, frames, *a, **k))[1],
    )
    window = audio_folder.read(audio_folder.Stretch(tmp_path / "long.wav", 20_000, 20_050, RATE), 50)
    np.testing.assert_array_equal(np.round(window * 2**15), np.arange(20_000, 20_050))
    assert asked == [50]


def test_everything_wrong_is_named_at_once(tmp_path):
    for n in range(5):
        write(tmp_path / f"{n}.flac", 0, 50_000)
    write(tmp_path / "other.wav", 0, 300, rate=RATE + 1)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    whole = (tmp_path / "4.flac").read_bytes()
    (tmp_path / "4.flac").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray((tmp_path / "3.flac").read_bytes())
    flipped[len(flipped) // 2] ^= 0xFF
    (tmp_path / "3.flac").write_bytes(flipped)
    soundfile.write(tmp_path / "a.ogg", np.zeros(1000), RATE)
    (tmp_path / "a.ogg").rename(tmp_path / "a.wav")
    (tmp_path / "notes.txt").write_text("mine")
    message = refusal(tmp_path)
    assert "it must hold WAV or FLAC files of one sample rate" in message
    for problem in ("broken.wav: ", "a.wav: must be WAV or FLAC. Received: OGG", "4.flac: ", "3.flac: "):
        assert f"\n  {problem}" in message
    assert "other.wav: has 8001 samples a second, most have 8000: convert it, as with `sox IN -r 8000 OUT`" in message
    assert len(message.splitlines()) == 6


def test_recordings_shorter_than_a_window(tmp_path):
    for n in range(4):
        write(tmp_path / f"{n}.wav", 0, 90)
    assert "as long as a window of 100 samples. Received windows: 0, 0, 0" in refusal(tmp_path, window=100)
