"""Findings of the checks, and the rules that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning", "note"]

RULES: dict[str, tuple[Severity, str]] = {
    "D001": ("error", "the folder holds a function definition"),
    "D002": ("error", "the definition is a YAML or JSON mapping"),
    "D003": ("error", "a key is given once"),
    "D101": ("error", "keys are known"),
    "D102": ("error", "required keys are given"),
    "D103": ("error", "values are of the expected kind and within limits"),
    "D104": ("error", "the source is given in one way"),
    "D105": ("error", "tensor names are unique, those of inputs also as parameters"),
    "D106": ("error", "the function declares an output"),
    "D107": ("error", "requests that are combined have a leading -1 in every tensor"),
    "D108": ("warning", "keys for processes are given only if the function runs in processes"),
    "D109": ("error", "deployment has options of manifest, valid and together"),
    "M201": ("error", "settings files are JSON mappings, of values MLServer takes"),
    "M202": ("error", "the implementation is mlserver_pyfunc.PyFuncRuntime"),
    "M203": ("error", "model-settings.json agrees with the definition"),
    "M204": ("error", "MLServer's own batching is off"),
    "M205": ("error", "no module beside model-settings.json hides the runtime"),
    "S301": ("error", "the source is there and matches its sha256"),
    "S302": ("note", "a remote source was checked"),
    "S303": ("error", "the source agrees with function.lock"),
    "S304": ("error", "no module of the source has the runtime's name"),
    "C401": ("error", "the code is valid Python"),
    "C402": ("error", "the module of the handler is in the source"),
    "C403": ("error", "handler, init and unload function are in their module"),
    "C404": ("error", "they are callable"),
    "C405": ("error", "the handler's parameters match the inputs"),
    "C406": ("error", "the init function's parameters are in init_parameters"),
    "C407": ("warning", "every declared input reaches the handler"),
    "C408": ("warning", "init_parameters have the names of the init function's parameters"),
    "C409": ("note", "the code shows the tensors that the definition leaves out"),
    "R501": ("error", "requirements are PEP 508 lines"),
    "R502": ("error", "requirements do not contradict each other"),
    "K601": ("warning", "inline code survives KServe's templating of {{ }}"),
    "K602": ("warning", "inline code fits an environment variable of 128 KiB"),
    "X701": ("error", "the function loads (--deep)"),
    "X702": ("error", "it answers contract-shaped requests within the contract (--deep)"),
}
"""Severity, and what is true if there is no finding, by rule id."""


@dataclass(frozen=True)
class Finding:
    """One fault and its place.

    Attributes:
        rule: Id of the rule in `RULES`.
        message: What was expected, what was found, and what to do.
        file: File that holds the fault.
        line: Line in the file, counted from 1.
    """

    rule: str
    message: str
    file: Path
    line: int

    @property
    def severity(self) -> Severity:
        """Severity of the rule."""
        return RULES[self.rule][0]
