"""Trains a classifier of languages on a few sentences, and writes it as language.onnx."""

from pathlib import Path

from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

SENTENCES = {
    "english": "the cat is on the table and it is not mine . where is the house of my friend ? "
    "i have a book that you gave me . we are in the city with them . this is what they said",
    "german": "die katze ist auf dem tisch und sie ist nicht mein . wo ist das haus von meinem "
    "freund ? ich habe ein buch das du mir gabst . wir sind in der stadt mit ihnen . "
    "das ist was sie sagten",
    "italian": "il gatto e sul tavolo e non e mio . dove e la casa del mio amico ? "
    "io ho un libro che tu mi hai dato . noi siamo in citta con loro . questo e quello che dicono",
}

if __name__ == "__main__":
    texts = [(text, name) for name, all_ in SENTENCES.items() for text in all_.split(" . ")]
    words = CountVectorizer(token_pattern="[a-z]+", lowercase=False)
    pipeline = make_pipeline(words, MultinomialNB()).fit(*zip(*texts, strict=True))
    model = to_onnx(
        pipeline,
        initial_types=[("text", StringTensorType([None, 1]))],
        options={"zipmap": False},
        target_opset=15,
    )
    Path(__file__).with_name("language.onnx").write_bytes(model.SerializeToString())
