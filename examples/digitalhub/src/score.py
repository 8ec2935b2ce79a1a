"""Scores reviews from -1 to 1 by the words they use; a handler as digitalhub calls it."""

import json


def init_context(context, liked, disliked):
    """Called once; attributes set on `context` are there in each call."""
    context.weights = {**dict.fromkeys(liked, 1), **dict.fromkeys(disliked, -1)}


def handler(context, event):
    """`event.body` is the inference request as JSON has it: lists, and text for BYTES."""
    request = event.body
    context.logger.info("request %s for %s", event.id, event.get_header("X-Model-Name"))
    texts = request["inputs"][0]["data"]
    scores = [score(text, context.weights) for text in texts]
    if None in scores:
        problem = {"error": f"review {scores.index(None)} is empty"}
        return context.Response(body=json.dumps(problem), status_code=422)
    output = {"name": "score", "datatype": "FP32", "shape": [len(scores)], "data": scores}
    return context.Response(body=json.dumps({"outputs": [output]}), status_code=200)


def score(text, weights):
    words = text.lower().split()
    if not words:
        return None
    known = [weights[word] for word in words if word in weights]
    return sum(known) / len(known) if known else 0.0
