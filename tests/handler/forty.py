"""Forty handlers in the manner of other frameworks, with the contract that each is to have.

`before` is the one line that had to change, as that framework's users write it; frameworks' own
imports, decorators and base classes are left out. `reason` says why a handler is not served.

A contract is written `name DATATYPE [shape]`, with `?` after the name of an optional tensor.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Case:
    name: str
    manner: str
    handler: str
    code: str
    inputs: str = ""
    outputs: str = ""
    given: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    before: str = ""
    reason: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


IMAGE = "PNG of 2 x 3 pixels"
"""Stands for the bytes of a picture in `given` and `answer`."""


def picture() -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(encoded, "PNG")
    return encoded.getvalue()


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [plain(each) for each in value.tolist()]
    return value.decode() if isinstance(value, bytes) and value != picture() else value


def real(values: dict[str, Any]) -> dict[str, Any]:
    return {name: [picture()] if value == [IMAGE] else value for name, value in values.items()}


FORTY = [
    Case(
        "greet", "FastAPI", "greet",
        '''
async def greet(name: str) -> str:
    return f"Hello {name}"
''',
        "name BYTES [1]", "output BYTES [1]",
        {"name": ["Ada"]}, {"output": ["Hello Ada"]},
    ),
    Case(
        "add", "FastAPI", "add",
        '''
def add(a: int, b: int = 2) -> int:
    return a + b
''',
        "a INT64 [1], b? INT64 [1]", "output INT64 [1]",
        {"a": [40]}, {"output": [42]},
    ),
    Case(
        "item", "FastAPI", "create_item",
        '''
from pydantic import BaseModel


class Item(BaseModel):
    name: str
    price: float
    tax: float | None = None


async def create_item(item: Item) -> Item:
    return item.model_copy(update={"price": item.price + (item.tax or 0)})
''',
        "name BYTES [1], price FP64 [1], tax? FP64 [1]",
        "name BYTES [1], price FP64 [1], tax? FP64 [1]",
        {"name": ["pen"], "price": [2.5], "tax": [0.5]},
        {"name": ["pen"], "price": [3.0], "tax": [0.5]},
    ),
    Case(
        "iris", "FastAPI", "predict",
        '''
from typing import Literal

from pydantic import BaseModel, Field


class Flower(BaseModel):
    sepal_length: float = Field(gt=0, description="in cm")
    petal_length: float = Field(gt=0)


class Species(BaseModel):
    label: Literal["setosa", "virginica"]
    probability: float


def predict(flower: Flower) -> Species:
    is_small = flower.petal_length < 2
    return Species(label="setosa" if is_small else "virginica", probability=0.9)
''',
        "sepal_length FP64 [1], petal_length FP64 [1]", "label BYTES [1], probability FP64 [1]",
        {"sepal_length": [5.1], "petal_length": [1.4]},
        {"label": ["setosa"], "probability": [0.9]},
    ),
    Case(
        "model-name", "FastAPI", "get_model",
        '''
from enum import Enum


class ModelName(str, Enum):
    alexnet = "alexnet"
    lenet = "lenet"


def get_model(model_name: ModelName) -> str:
    return "deep" if model_name is ModelName.alexnet else "LeCNN"
''',
        "model_name BYTES [1]", "output BYTES [1]",
        {"model_name": ["alexnet"]}, {"output": ["deep"]},
    ),
    Case(
        "search", "FastAPI", "search",
        '''
from typing import Annotated, Optional

from pydantic import Field


def search(q: Optional[str] = None, limit: Annotated[int, Field(ge=1, le=100)] = 2) -> list[str]:
    return [f"{q or 'all'} {number}" for number in range(limit)]
''',
        "q? BYTES [1], limit? INT64 [1]", "output BYTES [-1]",
        {"q": ["x"]}, {"output": ["x 0", "x 1"]},
    ),
    Case(
        "shift", "FastAPI", "shift",
        '''
from datetime import datetime, timedelta


def shift(at: datetime, hours: float = 1.0) -> datetime:
    return at + timedelta(hours=hours)
''',
        "at BYTES [1], hours? FP64 [1]", "output BYTES [1]",
        {"at": ["2025-03-01T10:00:00"], "hours": [2.0]}, {"output": ["2025-03-01T12:00:00"]},
    ),
    Case(
        "file", "FastAPI", "create_file",
        '''
async def create_file(file: bytes) -> int:
    return len(file)
''',
        "file BYTES [1]", "output INT64 [1]",
        {"file": [b"\x00\xff\x01"]}, {"output": [3]},
        before="async def create_file(file: UploadFile):",
    ),
    Case(
        "summarize", "BentoML", "Summarization.summarize",
        '''
class Summarization:
    def __init__(self) -> None:
        self.words = 2

    def summarize(self, text: str = "some longer text") -> str:
        return " ".join(text.split()[: self.words])
''',
        "text? BYTES [1]", "output BYTES [1]",
        {"text": ["a b c"]}, {"output": ["a b"]},
    ),
    Case(
        "classifier", "BentoML", "IrisClassifier.classify",
        '''
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from mlserver_pyfunc import Tensor


class IrisClassifier:
    def classify(self, rows: Annotated[NDArray[np.float32], Tensor(-1, 4)]) -> list[int]:
        return rows.argmax(axis=1)
''',
        "rows FP32 [-1, 4]", "output INT64 [-1]",
        {"rows": [[0.0, 1.0, 2.0, 0.0]]}, {"output": [2]},
        before="    def classify(self, rows: np.ndarray) -> np.ndarray:",
    ),
    Case(
        "embed", "BentoML", "Embedder.embed",
        '''
import numpy as np


class Embedder:
    def embed(self, sentences: list[str]) -> list[list[float]]:
        return np.array([[len(s), s.count(" ")] for s in sentences], dtype=np.float64)
''',
        "sentences BYTES [-1]", "output FP64 [-1, -1]",
        {"sentences": ["a b", "c"]}, {"output": [[3.0, 1.0], [1.0, 0.0]]},
        before="    def embed(self, sentences: list[str]) -> np.ndarray:",
    ),
    Case(
        "caption", "BentoML", "Captioner.caption",
        '''
from PIL.Image import Image


class Captioner:
    def caption(self, image: Image) -> str:
        return f"{image.width} by {image.height}"
''',
        "image BYTES [1]", "output BYTES [1]",
        {"image": [IMAGE]}, {"output": ["3 by 2"]},
    ),
    Case(
        "llm", "BentoML", "Llm.generate",
        '''
from collections.abc import AsyncGenerator
from typing import Annotated

from annotated_types import Ge, Le


class Llm:
    async def generate(
        self, prompt: str = "Say", max_tokens: Annotated[int, Ge(1), Le(8)] = 2
    ) -> AsyncGenerator[str, None]:
        for number in range(max_tokens):
            yield f"{prompt} {number}"
''',
        "prompt? BYTES [1], max_tokens? INT64 [1]", "output BYTES [1]",
        {"prompt": ["go"]}, {"output": ["go 0"]},
    ),
    Case(
        "to-image", "BentoML", "Sdxl.txt2img",
        '''
from PIL import Image


class Sdxl:
    def txt2img(self, prompt: str, num_inference_steps: int = 1) -> Image.Image:
        return Image.new("RGB", (3, 2), prompt)
''',
        "prompt BYTES [1], num_inference_steps? INT64 [1]", "output BYTES [1]",
        {"prompt": ["red"]}, {"output": [IMAGE]},
    ),
    Case(
        "square", "LitServe", "SquareApi.predict",
        '''
class SquareApi:
    def predict(self, x: float) -> float:
        return x**2
''',
        "x FP64 [1]", "output FP64 [1]",
        {"x": [4.0]}, {"output": [16.0]},
        before="    def predict(self, x):",
    ),
    Case(
        "two-models", "LitServe", "SimpleApi.predict",
        '''
class SimpleApi:
    def setup(self, device):
        self.square = lambda x: x**2

    def predict(self, x):
        return self.square(x)
''',
        reason="setup has to become __init__, and predict needs annotations: two lines",
    ),
    Case(
        "spec", "LitServe", "Api.predict",
        '''
from pydantic import BaseModel


class PredictRequest(BaseModel):
    input: float


class PredictResponse(BaseModel):
    output: float


class Api:
    def predict(self, request: PredictRequest) -> PredictResponse:
        return PredictResponse(output=request.input * 2)
''',
        "input FP64 [1]", "output FP64 [1]",
        {"input": [1.5]}, {"output": [3.0]},
    ),
    Case(
        "lit-stream", "LitServe", "Api.predict",
        '''
from collections.abc import Iterator


class Api:
    def predict(self, prompt: str) -> Iterator[str]:
        yield from prompt.split()
''',
        "prompt BYTES [1]", "output BYTES [1]",
        {"prompt": ["a b"]}, {"output": ["a"]},
        before="    def predict(self, prompt):",
    ),
    Case(
        "lit-batch", "LitServe", "Api.predict",
        '''
class Api:
    def predict(self, x: list[float]) -> list[float]:
        return [value * 10 for value in x]
''',
        "x FP64 [-1]", "output FP64 [-1]",
        {"x": [1.0, 2.0]}, {"output": [10.0, 20.0]},
        before="    def predict(self, x):",
    ),
    Case(
        "hello", "Cog", "Predictor.predict",
        '''
class Predictor:
    def __init__(self) -> None:
        self.greeting = "hello"

    def predict(self, text: str) -> str:
        return f"{self.greeting} {text}"
''',
        "text BYTES [1]", "output BYTES [1]",
        {"text": ["you"]}, {"output": ["hello you"]},
        before="    def setup(self) -> None:",
    ),
    Case(
        "scale", "Cog", "Predictor.predict",
        '''
from typing import Annotated

from pydantic import Field


class Predictor:
    def predict(
        self,
        value: float,
        scale: Annotated[float, Field(description="Factor", ge=0, le=10)] = 1.5,
    ) -> float:
        return value * scale
''',
        "value FP64 [1], scale? FP64 [1]", "output FP64 [1]",
        {"value": [2.0], "scale": [10.0]}, {"output": [20.0]},
        before='        scale: float = Input(description="Factor", ge=0, le=10, default=1.5),',
    ),
    Case(
        "output-object", "Cog", "Predictor.predict",
        '''
from pydantic import BaseModel


class Output(BaseModel):
    text: str
    score: float | None = None


class Predictor:
    def predict(self, prompt: str) -> Output:
        return Output(text=prompt.upper())
''',
        "prompt BYTES [1]", "text BYTES [1], score? FP64 [1]",
        {"prompt": ["a"]}, {"text": ["A"]},
    ),
    Case(
        "cog-stream", "Cog", "Predictor.predict",
        '''
from typing import Iterator


class Predictor:
    def predict(self, n: int = 3) -> Iterator[str]:
        for number in range(n):
            yield str(number)
''',
        "n? INT64 [1]", "output BYTES [1]",
        {"n": [1]}, {"output": ["0"]},
    ),
    Case(
        "choices", "Cog", "Predictor.predict",
        '''
from typing import Literal


class Predictor:
    def predict(
        self,
        size: Literal["small", "large"] = "small",
    ) -> list[int]:
        return [len(size)]
''',
        "size? BYTES [1]", "output INT64 [-1]",
        {"size": ["large"]}, {"output": [5]},
        before='        size: str = Input(choices=["small", "large"], default="small"),',
    ),
    Case(
        "resize", "Cog", "Predictor.predict",
        '''
from pathlib import Path


class Predictor:
    def predict(self, image: Path) -> Path:
        return image
''',
        reason="a pathlib.Path is no value: take bytes or an Image, in the signature and the code",
    ),
    Case(
        "run", "Cog", "run",
        '''
def run(prompt: str, seed: int | None = None) -> str:
    return f"{prompt} {seed}"
''',
        "prompt BYTES [1], seed? INT64 [1]", "output BYTES [1]",
        {"prompt": ["p"]}, {"output": ["p None"]},
    ),
    Case(
        "helloworld", "Tesseract", "apply",
        '''
from pydantic import BaseModel, Field


class InputSchema(BaseModel):
    name: str = Field(description="Name of the person to greet.")


class OutputSchema(BaseModel):
    greeting: str = Field(description="A greeting.")


def apply(inputs: InputSchema) -> OutputSchema:
    """Greet a person."""
    return OutputSchema(greeting=f"Hello {inputs.name}!")
''',
        "name BYTES [1]", "greeting BYTES [1]",
        {"name": ["Ada"]}, {"greeting": ["Hello Ada!"]},
    ),
    Case(
        "vectoradd", "Tesseract", "apply",
        '''
from pydantic import BaseModel


class InputSchema(BaseModel):
    a: "Array[(None,), Float32]"
    b: "Array[(None,), Float32]"


def apply(inputs: InputSchema) -> dict:
    return {"result": inputs.a + inputs.b}
''',
        reason="Tesseract's Array type is its own: each such field is a changed line",
    ),
    Case(
        "rosenbrock", "Tesseract", "apply",
        '''
from pydantic import BaseModel


class InputSchema(BaseModel):
    x: float
    y: float
    a: float = 1.0
    b: float = 100.0


class OutputSchema(BaseModel):
    result: float


def apply(inputs: InputSchema) -> OutputSchema:
    x, y, a, b = inputs.x, inputs.y, inputs.a, inputs.b
    return OutputSchema(result=(a - x) ** 2 + b * (y - x**2) ** 2)
''',
        "x FP64 [1], y FP64 [1], a? FP64 [1], b? FP64 [1]", "result FP64 [1]",
        {"x": [1.0], "y": [2.0]}, {"result": [100.0]},
    ),
    Case(
        "mesh", "Tesseract", "apply",
        '''
from pydantic import BaseModel


class InputSchema(BaseModel):
    sizes: list[int]
    names: list[str] = []


class OutputSchema(BaseModel):
    total: int
    labels: list[str]


def apply(inputs: InputSchema) -> OutputSchema:
    return OutputSchema(total=sum(inputs.sizes), labels=inputs.names)
''',
        "sizes INT64 [-1], names? BYTES [-1]", "total INT64 [1], labels BYTES [-1]",
        {"sizes": [1, 2], "names": ["a"]}, {"total": [3], "labels": ["a"]},
    ),
    Case(
        "identity", "PyTriton", "infer_fn",
        '''
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from mlserver_pyfunc import Tensor


def infer_fn(data: (Rows := Annotated[NDArray[np.float32], Tensor(-1, -1)])) -> Rows:
    return data * np.array([[-1]], dtype=np.float32)
''',
        "data FP32 [-1, -1]", "output FP32 [-1, -1]",
        {"data": [[1.0, 2.0]]}, {"output": [[-1.0, -2.0]]},
        before="def infer_fn(data: np.ndarray):",
    ),
    Case(
        "bart", "PyTriton", "classify",
        '''
import numpy as np


def classify(sequence: list[str], labels: list[str]) -> list[str]:
    scores = [[word in text for word in labels] for text in sequence]
    return np.array(labels, dtype=object)[np.argmax(scores, axis=1)]
''',
        "sequence BYTES [-1], labels BYTES [-1]", "output BYTES [-1]",
        {"sequence": ["a cat"], "labels": ["dog", "cat"]}, {"output": ["cat"]},
        before="def classify(sequence: np.ndarray, labels: np.ndarray):",
    ),
    Case(
        "add-sub", "PyTriton", "add_sub",
        '''
from typing import TypedDict

import numpy as np
from jaxtyping import Float32

Sums = TypedDict("Sums", {"add": (V := Float32[np.ndarray, "n"]), "sub": V})


def add_sub(a: V, b: V) -> Sums:
    return {"add": a + b, "sub": a - b}
''',
        "a FP32 [n], b FP32 [n]", "add FP32 [n], sub FP32 [n]",
        {"a": [3.0, 4.0], "b": [1.0, 1.0]}, {"add": [4.0, 5.0], "sub": [2.0, 3.0]},
        before="def add_sub(a, b):",
    ),
    Case(
        "generate", "PyTriton", "generate",
        '''
def generate(prompts: list[str], max_tokens: int = 2, stop: str = ".") -> list[str]:
    return [" ".join(p.split()[:max_tokens]) + stop for p in prompts]
''',
        "prompts BYTES [-1], max_tokens? INT64 [1], stop? BYTES [1]", "output BYTES [-1]",
        {"prompts": ["a b c"]}, {"output": ["a!"]},
        before="def generate(prompts: np.ndarray, **parameters):",
        parameters={"max_tokens": 1, "stop": "!"},
    ),
    Case(
        "gradio-greet", "Gradio", "greet",
        '''
def greet(name: str, intensity: int) -> str:
    return "Hello, " + name + "!" * intensity
''',
        "name BYTES [1], intensity INT64 [1]", "output BYTES [1]",
        {"name": ["Ada"], "intensity": [2]}, {"output": ["Hello, Ada!!"]},
        before="def greet(name, intensity):",
    ),
    Case(
        "sepia", "Gradio", "sepia",
        '''
from typing import Annotated as A

import numpy as np
from numpy.typing import NDArray

from mlserver_pyfunc import Tensor


def sepia(img: (Rgb := A[NDArray[np.uint8], Tensor("height", "width", 3)])) -> Rgb:
    return np.minimum(img.astype(int) * 2, 255).astype(np.uint8)
''',
        "img UINT8 [height, width, 3]", "output UINT8 [height, width, 3]",
        {"img": [[[1, 2, 200]]]}, {"output": [[[2, 4, 255]]]},
        before="def sepia(img):",
    ),
    Case(
        "calculator", "Gradio", "calculator",
        '''
from typing import Literal


def calculator(a: float, operation: Literal["add", "divide"], b: float) -> float:
    return a + b if operation == "add" else a / b
''',
        "a FP64 [1], operation BYTES [1], b FP64 [1]", "output FP64 [1]",
        {"a": [6.0], "operation": ["divide"], "b": [4.0]}, {"output": [1.5]},
        before="def calculator(a, operation, b):",
    ),
    Case(
        "chat", "Gradio", "slow_echo",
        '''
from collections.abc import Iterator


def slow_echo(message: str, history: list[str] = []) -> Iterator[str]:
    for end in range(len(message)):
        yield f"{len(history)} {message[: end + 1]}"
''',
        "message BYTES [1], history? BYTES [-1]", "output BYTES [1]",
        {"message": ["hey"], "history": ["a", "b"]}, {"output": ["2 h"]},
        before="def slow_echo(message, history):",
    ),
    Case(
        "add-n", "MLflow", "AddN.predict",
        '''
class AddN:
    def __init__(self, n: int = 5) -> None:
        self.n = n

    def predict(self, context, model_input: list[int], params=None) -> list[int]:
        return [value + self.n for value in model_input]
''',
        "model_input INT64 [-1]", "output INT64 [-1]",
        {"model_input": [1, 2]}, {"output": [6, 7]},
    ),
    Case(
        "messages", "MLflow", "Chat.predict",
        '''
import pydantic


class Message(pydantic.BaseModel):
    role: str
    content: str


class Chat:
    def predict(self, model_input: list[Message]) -> list[str]:
        return [f"{message.role}: {message.content}" for message in model_input]
''',
        "role BYTES [rows], content BYTES [rows]", "output BYTES [-1]",
        {"role": ["user", "bot"], "content": ["hi", "ho"]}, {"output": ["user: hi", "bot: ho"]},
    ),
]  # fmt: skip
