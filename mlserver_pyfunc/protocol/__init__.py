"""The Open Inference Protocol: datatypes, tensors, requests and the tensor contract.

Follows the Open Inference Protocol v2 (https://github.com/kserve/open-inference-protocol).
Needs only NumPy and the standard library, because workers in other interpreters import it.
"""
