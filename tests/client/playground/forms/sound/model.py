"""Measures a recording and gives it back."""

import io
import wave


def loudness(recording):
    with wave.open(io.BytesIO(recording[0])) as sound:
        assert (sound.getnchannels(), sound.getsampwidth()) == (1, 2)
        seconds = sound.getnframes() / sound.getframerate()
    return {"seconds": [seconds], "again": recording}
