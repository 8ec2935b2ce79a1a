from . import rules


async def predict(text):
    return [rules.count(line) for line in text]
