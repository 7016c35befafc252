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


def test_a_recording_that_is_cut_is_counted_in_tenths_and_checked_once(tmp_path, monkeypatch):
    write(tmp_path / "long.flac", 0, 5000)
    asked = []
    real = audio_folder.size
    monkeypatch.setattr(audio_folder, "size", lambda stretch: (asked.append(stretch.path.name), real(stretch))[1])
    source = tfzoo.data.open(str(tmp_path), "audio", seed=0, window=100)
    assert asked == ["long.flac"]
    assert source.description == (
        f"{tmp_path}: 6 tenths of recordings to train on, 2 for validation, 2 held out; "
        "30, 10, 10 windows of 100 samples at 8000 Hz"
    )
    whole = (tmp_path / "long.flac").read_bytes()
    (tmp_path / "long.flac").write_bytes(whole[: len(whole) // 2])
    assert len(refusal(tmp_path).splitlines()) == 2


def test_recordings_of_which_no_part_is_cut_stay_whole(tmp_path):
    for n, name in enumerate(("train", "val", "test")):
        write(tmp_path / name / "one.wav", 1000 * n, 105)
    source = tfzoo.data.open(str(tmp_path), "audio", seed=0, window=50)
    assert [values(part)[1][0] for part in (source.training, source.validation, source.held_out)] == [50, 1050, 2050]
    assert "1 recordings to train on, 1 for validation, 1 held out; 2, 2, 2 windows" in source.description


@pytest.mark.parametrize("kept", [0.5, 0.999])
@pytest.mark.parametrize(
    ("form", "endian"), [("WAV", "LITTLE"), ("WAV", "BIG"), ("WAVEX", "LITTLE"), ("RF64", "LITTLE")]
)
def test_a_wav_that_is_cut_short(tmp_path, form, endian, kept):
    for n in range(4):
        write(tmp_path / f"{n}.wav", 0, 1000)
    sound = np.zeros((1001, 3), np.float32)
    soundfile.write(tmp_path / "4.wav", sound, RATE, "PCM_24", format=form, endian=endian)
    tfzoo.data.open(str(tmp_path), "audio", seed=0, window=100)
    whole = (tmp_path / "4.wav").read_bytes()
    (tmp_path / "4.wav").write_bytes(whole[: round(kept * len(whole))])
    there = round(kept * len(whole)) - (len(whole) - 9009 - 1)  # with a byte to make the chunk even
    message = refusal(tmp_path)
    assert f"\n  4.wav: must have 9009 bytes of samples, as its head says. Received: {there}. Get it anew" in message
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"]
)
def test_wavs_of_every_kind_that_are_whole(tmp_path, subtype):
    wave = np.sin(np.arange(5001) / 20)
    for n in range(3):
        soundfile.write(tmp_path / f"{n}.wav", wave, RATE, subtype)
    (tmp_path / "2.wav").write_bytes((tmp_path / "2.wav").read_bytes() + b"LIST\x04\0\0\0name")  # more behind it
    source = tfzoo.data.open(str(tmp_path), "audio", seed=0, window=1000)
    np.testing.assert_allclose(source.training[1][0], wave[1000:2000], atol=0.1)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, 7.0, -1.001])
def test_samples_that_are_none(tmp_path, wrong, subtype):
    for n in range(4):
        sound = np.full(600_000, -1.0)
        sound[400_000] = wrong if n == 3 else 1
        soundfile.write(tmp_path / f"{n}.wav", sound, RATE, subtype)
    lines = refusal(tmp_path).splitlines()
    assert lines[1].startswith(f"  3.wav: samples must lie in [-1, 1]. Received: {abs(wrong):.4g}") and len(lines) == 2


def test_a_folder_without_recordings(tmp_path):
    assert f"\n  {tmp_path}: holds no recordings" in refusal(tmp_path)
    write(tmp_path / "train" / "a.wav", 0, 90)
    (tmp_path / "val").mkdir()
    assert "\n  val: holds no recordings" in refusal(tmp_path)


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
