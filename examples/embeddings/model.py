"""Turns texts into vectors, by a model that the package wordllama carries in its wheel."""

from pathlib import Path

import wordllama


def load(context):
    """The wheel has weights and tokens: nothing is downloaded."""
    folder = Path(wordllama.__file__).parent
    context.model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)


def embed(text, context):
    embedding = context.model.embed(list(text), norm=True)
    return {"embedding": embedding, "similarity": embedding @ embedding.T}
