"""Writes down the melody of a sound file."""

import io
from itertools import groupby

import numpy as np
import soundfile

from mlserver_pyfunc import InferenceError

NAMES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
STEP = 0.05  # seconds between two looks at the sound


def notes(sound, context):
    """`sound` is an array of one `bytes`."""
    samples, rate = read(sound[0], context.init_parameters["max_seconds"])
    size = int(2 * STEP * rate)
    starts = range(0, max(1, len(samples) - size), int(STEP * rate))
    heard = [name_of(samples[start : start + size], rate) for start in starts]
    found = []
    for name, group in groupby(enumerate(heard), key=lambda pair: pair[1]):
        times = [index * STEP for index, _ in group]
        if name is not None and len(times) > 1:
            found.append((name, times[0], len(times) * STEP))
    return tuple(zip(*found, strict=True)) or ([], [], [])


def read(data, max_seconds):
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.frames > max_seconds * file.samplerate:
                raise InferenceError(f"the sound is longer than {max_seconds} s", status=413)
            return file.read(always_2d=True).mean(axis=1), file.samplerate
    except soundfile.LibsndfileError:
        message = 'input "sound": expected a WAV, FLAC or OGG file'
        raise InferenceError(message, status=415) from None


def name_of(samples, rate):
    """The strongest tone, as the name of a note, or None if it is quiet."""
    if np.abs(samples).mean() < 0.01:
        return None
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    tone = spectrum.argmax() * rate / (8 * len(samples))
    number = round(69 + 12 * np.log2(max(tone, 20) / 440))
    return f"{NAMES[number % 12]}{number // 12 - 1}"
