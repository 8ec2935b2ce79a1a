"""W1 on BentoML, over its own protocol with the JSON of the Open Inference Protocol."""

import bentoml
import numpy as np


@bentoml.service(workers=1, traffic={"timeout": 60})
class Doubled:
    @bentoml.api(route="/v2/models/w1/infer")
    def infer(self, inputs: list) -> dict:
        tensor = inputs[0]
        x = np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        y = x * 2
        output = {
            "name": "y",
            "shape": list(y.shape),
            "datatype": "FP32",
            "data": y.ravel().tolist(),
        }
        return {"outputs": [output]}
