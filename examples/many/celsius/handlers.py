from rules import convert


def predict(fahrenheit):
    return convert(fahrenheit)
