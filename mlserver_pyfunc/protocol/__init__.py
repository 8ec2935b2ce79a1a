"""The Open Inference Protocol: datatypes, tensors and the contract. Needs only NumPy."""
