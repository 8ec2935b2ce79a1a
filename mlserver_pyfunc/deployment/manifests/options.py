"""The options of a manifest: those that a definition keeps, under those that are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError, model_validator

from mlserver_pyfunc.definition.deployment import (
    ONLY,
    DeploymentDefinition,
    DeploymentOptions,
    over,
)
from mlserver_pyfunc.definition.kubernetes_names import check
from mlserver_pyfunc.definition.reading import problems_in
from mlserver_pyfunc.deployment.names import BASE
from mlserver_pyfunc.errors import PyFuncError

image_name = check(BASE, "registry/name:tag or name@digest", limit=512)


class ManifestError(PyFuncError):
    """No manifest can be made from the function and the options."""


class Options(DeploymentOptions):
    """What a manifest depends on besides the function."""

    preset: str | None = None
    """Options from `deployment.presets` of the definition, over its other options."""
    image: Annotated[str, AfterValidator(image_name)] | None = None
    """Image to run.  [the image that the definition names, else the one built last]"""

    @model_validator(mode="after")
    def _options_agree(self) -> Options:
        self.check_together()
        return self

    def refuse_for(self, platform: str) -> None:
        """Refuses options that have no effect on a platform, if they are not the default."""
        for name, only in ONLY.items():
            default = type(self).model_fields[name].default
            if platform not in only and getattr(self, name) != default:
                option = name.replace("_", "-")
                raise ManifestError(f"--{option}: goes with {', '.join(only)} only")


def parse(values: Mapping[str, Any]) -> Options:
    """Reads options; raises `ManifestError`, which names them, if they are not valid."""
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        messages = [problem.message for problem in problems_in(error, Options)]
        raise ManifestError("; ".join(messages)) from None


def options_of(platform: str, deployment: Mapping[str, Any], given: Mapping[str, Any]) -> Options:
    """Reads options of a manifest that come over those that the definition keeps.

    Kept options that the platform does not have are left out. A number of replicas turns off the
    autoscaling that is kept.
    """
    kept = DeploymentDefinition.model_validate(deployment)
    preset = given.get("preset")
    if preset and preset not in kept.presets:
        listed = ", ".join(kept.presets) or "none in deployment.presets"
        raise ManifestError(f'--preset: expected one of {listed}, got "{preset}"')
    left_out = {name for name, only in ONLY.items() if platform not in only}
    if given.get("replicas") is not None:
        left_out |= {"min_replicas", "max_replicas"}
    found = {name: value for name, value in kept.kept(preset).items() if name not in left_out}
    return parse(over(found, given))
