"""`manifest`: Kubernetes objects that serve a function."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mlserver_pyfunc.definition.locate import Located

PLATFORMS = ("kserve", "seldon-v1", "seldon-v2", "kubernetes")


def options(command: Any) -> Any:
    """Adds every option by which a manifest is asked for."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_options(given: dict[str, Any]) -> dict[str, Any]:
    """The options as `manifests.parse` takes them; what was not given is left out."""
    readers = {
        "env": _pairs,
        "secrets": _secrets,
        "env_from": _env_from,
        "volumes": _volumes,
        "node_selector": _pairs,
        "tolerations": _tolerations,
        "labels": _pairs,
        "annotations": _pairs,
    }
    values = {}
    for name, value in given.items():
        if value is None or value == ():
            continue
        values[name] = readers[name](value) if name in readers else value
    if values.get("run_as_user") == "any":
        values["run_as_user"] = None
    return values


_OPTIONS = [
    click.option("--name", help="Of the objects; made of the model's where it is not given."),
    click.option("--namespace", "-n", help="Of the objects."),
    click.option("--image", help="Default: the definition's, else the one built last."),
    click.option(
        "--shape",
        type=click.Choice(["auto", "image", "storage", "inline"]),
        help="image: the function is in the image. storage: the runtime's own image, and the "
        "folder at --storage-uri. inline: the same image, and the code in the manifest. "
        "Default: storage with --storage-uri, else image.",
    ),
    click.option("--storage-uri", help="Where the platform fetches the model's folder from."),
    click.option("--runtime", help="Name of the ServingRuntime or Server.  [mlserver-pyfunc]"),
    click.option("--cluster-runtime/--namespace-runtime", default=None, help="KServe: which kind."),
    click.option(
        "--with-runtime/--without-runtime",
        default=None,
        help="Whether the runtime or Server is printed too.",
    ),
    click.option("--mode", type=click.Choice(["standard", "knative"]), help="How KServe runs it."),
    click.option(
        "--protocol", type=click.Choice(["rest", "grpc"]), help="Which one Knative lets in."
    ),
    click.option("--replicas", type=int, help="Without autoscaling.  [1]"),
    click.option("--min-replicas", type=int, help="With autoscaling.  [1]"),
    click.option("--max-replicas", type=int, help="Turns autoscaling on."),
    click.option("--target-cpu", type=int, help="Percent at which replicas are added.  [80]"),
    click.option("--cpu", help="Requested.  [1]"),
    click.option("--memory", help="Requested, and the limit.  [1Gi]"),
    click.option("--cpu-limit", help="Default: none."),
    click.option("--gpus", type=int, help="Per replica."),
    click.option("--gpu-resource", help="What the cluster calls a GPU.  [nvidia.com/gpu]"),
    click.option("--tmp-size", help="Limit of /tmp, the one folder that can be written to."),
    click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable; no secret."),
    click.option(
        "--secret",
        "secrets",
        multiple=True,
        metavar="NAME=SECRET/KEY",
        help="A variable from a Kubernetes Secret.",
    ),
    click.option(
        "--env-from",
        multiple=True,
        metavar="secret/NAME|configmap/NAME",
        help="All keys of it as variables.",
    ),
    click.option(
        "--volume",
        "volumes",
        multiple=True,
        metavar="pvc/NAME:/PATH[:ro]",
        help="Also secret/NAME:/PATH, configmap/NAME:/PATH and emptydir:/PATH.",
    ),
    click.option(
        "--service-type",
        type=click.Choice(["ClusterIP", "NodePort", "LoadBalancer"]),
        help="kubernetes: of the Service.",
    ),
    click.option("--service-name", help="kubernetes and seldon-v1: of the Service."),
    click.option("--node-selector", multiple=True, metavar="KEY=VALUE", help="Where pods run."),
    click.option(
        "--toleration",
        "tolerations",
        multiple=True,
        metavar="KEY[=VALUE][:EFFECT]",
        help="A taint that pods run in spite of.",
    ),
    click.option("--service-account", help="As whom pods run."),
    click.option("--image-pull-secret", "image_pull_secrets", multiple=True, metavar="SECRET"),
    click.option("--image-pull-policy", type=click.Choice(["Always", "IfNotPresent", "Never"])),
    click.option(
        "--run-as-user", metavar="UID|any", help="any: the platform chooses, as OpenShift.  [1000]"
    ),
    click.option("--label", "labels", multiple=True, metavar="KEY=VALUE"),
    click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE"),
]


@click.command("manifest")
@click.argument("platform", type=click.Choice(PLATFORMS))
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@options
@click.option("-o", "--output", type=click.File("w"), default="-", help="Write it to a file.")
def command(platform: str, folder: Path, output: IO[str], **given: Any) -> None:
    """Print the Kubernetes objects that serve the function in FOLDER."""
    from mlserver_pyfunc.definition.folder import open_folder
    from mlserver_pyfunc.deployment.manifests import dump

    located = open_folder(folder).located
    warn(platform, located, given)
    output.write(dump(objects(platform, located, given)))


def objects(platform: str, located: Located, given: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a function, by the options as given."""
    from mlserver_pyfunc.deployment import manifests

    asked = manifests.parse(read_options(given))
    return manifests.objects(platform, located.definition, located.folder, asked)


def warn(platform: str, located: Located, given: dict[str, Any]) -> None:
    """Tells what is worth knowing before a function's objects are applied."""
    from mlserver_pyfunc.deployment import manifests

    asked = manifests.parse(read_options(given))
    for warning in manifests.warnings(platform, located.definition, located.folder, asked):
        click.echo(f"{click.style('warning', fg='yellow', bold=True)}: {warning}", err=True)


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise click.BadParameter(f'expected NAME=VALUE, got "{text}"')
        pairs[name] = value
    return pairs


def _secrets(given: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for name, reference in _pairs(given).items():
        secret, separator, key = reference.partition("/")
        if not separator:
            raise click.BadParameter(f"--secret {name}: expected NAME=SECRET/KEY")
        found[name] = {"secret": secret, "key": key}
    return found


def _env_from(given: tuple[str, ...]) -> list[dict[str, str]]:
    found = []
    for text in given:
        kind, separator, name = text.partition("/")
        if not separator:
            raise click.BadParameter(f'expected secret/NAME or configmap/NAME, got "{text}"')
        found.append({"kind": kind, "name": name})
    return found


def _volumes(given: tuple[str, ...]) -> list[dict[str, Any]]:
    found = []
    for text in given:
        source, _, rest = text.partition(":")
        path, _, mode = rest.partition(":")
        kind, separator, name = source.partition("/")
        if not path or mode not in ("", "ro", "rw"):
            raise click.BadParameter(f'expected pvc/NAME:/PATH or pvc/NAME:/PATH:ro, got "{text}"')
        volume = {"kind": kind, "path": path, "read_only": mode == "ro"}
        found.append({**volume, "name": name} if separator else volume)
    return found


def _tolerations(given: tuple[str, ...]) -> list[dict[str, str]]:
    found = []
    for text in given:
        rest, has_effect, effect = text.partition(":")
        key, has_value, value = rest.partition("=")
        found.append(
            {
                "key": key,
                **({"value": value} if has_value else {}),
                **({"effect": effect} if has_effect else {}),
            }
        )
    return found
