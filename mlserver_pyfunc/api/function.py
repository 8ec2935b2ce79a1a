"""`Function`: a definition and code, to call, check, save, serve, build and deploy."""

from __future__ import annotations

import inspect
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import yaml

from mlserver_pyfunc.definition import FILE_NAME, FunctionDefinition, TensorDefinition
from mlserver_pyfunc.definition.locate import FunctionFolder, open_folder
from mlserver_pyfunc.definition.model_settings import MODEL_SETTINGS, SETTINGS_TEXT
from mlserver_pyfunc.definition.rendering import render
from mlserver_pyfunc.errors import BindError, DefinitionError
from mlserver_pyfunc.protocol.contract import Contract

from . import code

if TYPE_CHECKING:
    from mlserver_pyfunc.deployment.image.builder import Result
    from mlserver_pyfunc.deployment.manifests import Manifest
    from mlserver_pyfunc.deployment.server_process import Server
    from mlserver_pyfunc.serving.local import LocalFunction
    from mlserver_pyfunc.validation import Finding

    from .deployment import Deployment


class Function(AbstractContextManager["Function"]):
    """A function that this package serves.

    Calls take the server's path: the contract checks the inputs and the outputs.

    >>> def double(x: float) -> float:
    ...     return 2 * x
    >>> fn = Function(double)
    >>> fn
    Function(double: x FP64 [1] -> output FP64 [1]; model.py:double)
    >>> fn(x=1.5)
    {'output': array([3.])}
    >>> fn.close()

    Args:
        predict: The handler: a function, or a class with `__call__`. If a notebook or a script
            defines it, its source is written to a module, with what it uses.
        requirements: Packages that it needs, as PEP 508 lines.
        python_version: Version of Python that it needs, such as `3.12`.
        name: Name of the model; by default that of the handler.
        source: Python file that has the handler, if its source cannot be written.
        keys: Any other key of a definition: `inputs`, `outputs`, `serving` and so on.

    Raises:
        DefinitionError: The definition is not valid, or the source cannot be written.
    """

    def __init__(
        self,
        predict: Callable[..., Any],
        *,
        requirements: Sequence[str] = (),
        python_version: str | None = None,
        name: str | None = None,
        source: str | Path | None = None,
        **keys: Any,
    ) -> None:
        self._handler = predict
        text, described = code.source_of(predict, source)
        given = {
            "model_name": name or predict.__name__,
            "source": described,
            "requirements": list(requirements) or None,
            "python_version": python_version,
        }
        self._open_new({**given, **keys}, text)

    @classmethod
    def load(cls, place: str | Path) -> Function:
        """Opens a function's folder, a definition file, or a handler such as `model.py:predict`.

        Raises:
            DefinitionError: There is no definition, or it is not valid.
        """
        function = cls.__new__(cls)
        function._open(Path(place))
        return function

    @classmethod
    def from_source(
        cls, uri: str, handler: str, *, name: str | None = None, **keys: Any
    ) -> Function:
        """Describes a function by the URI of its code, such as `git+https://...#v1`.

        The handler is `module:callable`; keywords are other keys of a definition.
        """
        function = cls.__new__(cls)
        described = {"source": uri, "handler": handler}
        given = {"model_name": name or handler.rpartition(":")[2], "source": described, **keys}
        function._open_new(given, "")
        return function

    _handler: Callable[..., Any] | None = None

    def _open(self, place: Path) -> None:
        self._lock = threading.Lock()
        self.place = place
        self.opened: FunctionFolder = open_folder(place)

    def _open_new(self, definition: Mapping[str, Any], text: str) -> None:
        """Writes a definition and its code to a folder that goes with this object."""
        folder = Path(tempfile.mkdtemp(prefix="pyfunc-function-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        if text:
            (folder / "model.py").write_text(text, encoding="utf-8")
        given = {key: _plain(value) for key, value in definition.items() if value is not None}
        _write(folder, given)
        self._open(folder)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.opened.model_name

    @property
    def folder(self) -> Path:
        """Folder of the definition."""
        return self.opened.folder

    @property
    def definition(self) -> FunctionDefinition:
        """The definition, with the tensors that the handler's signature tells.

        Those of code elsewhere, in a folder for example, are known after the first call.
        """
        local: LocalFunction | None = vars(self).get("_local")
        return local.definition if local else self._described

    @property
    def contract(self) -> Contract:
        """The declared tensors. Loads the function."""
        return self._loaded().contract

    def __call__(self, inputs: Any = None, /, **named: Any) -> Any:
        """Calls the function in this process, or in a worker if its requirements differ.

        Returns the outputs as arrays by name; as a frame if the inputs are one.

        Raises:
            RequestError: The error that a client would get.
            LoadError: The function cannot be loaded, which the first call does.
        """
        return self._loaded()(inputs, **named)

    def stream(self, inputs: Any = None, /, **named: Any) -> Iterator[Any]:
        """Calls the function and yields its answers one by one; otherwise like a call."""
        return self._loaded().stream(inputs, **named)

    def close(self) -> None:
        """Unloads the function. The next call loads it again."""
        with self._lock:
            local: LocalFunction | None = vars(self).pop("_local", None)
        if local:
            local.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, folder: str | Path) -> Path:
        """Writes the definition, the settings and the local code to a new folder."""
        from mlserver_pyfunc import sources
        from mlserver_pyfunc.deployment.image.source_files import selected

        target = Path(folder)
        if (target / FILE_NAME).exists():
            raise DefinitionError(f"{target}: holds {FILE_NAME} already, choose another folder")
        target.mkdir(parents=True, exist_ok=True)
        definition = self.opened.definition
        kept = definition.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        kept["model_name"] = self.name
        if definition.source.source and "://" not in definition.source.source:
            tree = sources.fetch(definition.source, self.folder)
            for name, content in selected(tree, self.folder).items():
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
            kept["source"]["source"] = tree.file or "."
        _write(target, kept)
        return target

    def validate(self) -> list[Finding]:
        """Checks the function without running its code, as `mlserver-pyfunc validate` does."""
        from mlserver_pyfunc.validation import validate

        return validate(self.place)

    def lock(self) -> Path:
        """Pins the source and the requirements in function.lock, and returns its path."""
        from mlserver_pyfunc.environments.environment import resolve
        from mlserver_pyfunc.sources import lock

        definition, folder = self.opened.definition, self.folder
        return lock.write(definition, folder, resolve(definition, folder))

    def build(self, tag: str, **options: Any) -> Result:
        """Builds a container image; options are those of `image.build_context.Options`."""
        from mlserver_pyfunc.deployment.image.build_context import Options
        from mlserver_pyfunc.deployment.image.builder import build

        return build(self.place, tag, Options(**options))

    def build_context(self, output: str | Path, **options: Any) -> Path:
        """Writes the folder that `build` gives to the engine, for a builder elsewhere."""
        from mlserver_pyfunc.deployment.image.build_context import Options
        from mlserver_pyfunc.deployment.image.builder import write_context

        write_context(self.place, Path(output), Options(**options))
        return Path(output)

    def manifest(self, platform: str, **options: Any) -> str:
        """Returns the Kubernetes objects that serve the function, as YAML: see `deploy`."""
        from mlserver_pyfunc.deployment.manifests import dump

        return dump(self.objects(platform, **options).objects)

    def objects(self, platform: str, **options: Any) -> Manifest:
        """Returns the Kubernetes objects that serve the function, and warnings: see `deploy`."""
        from mlserver_pyfunc.deployment import manifests

        opened = self.opened
        parsed = manifests.options_of(platform, opened.definition.deployment, options)
        return manifests.derive(
            platform, opened.definition, self.folder, parsed, opened.settings_file
        )

    def deploy(
        self,
        platform: str,
        *,
        wait: float = 600,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
        **options: Any,
    ) -> Deployment:
        """Puts the function on a Kubernetes cluster, and waits until it serves.

        The platform is `kserve`, `seldon-v1`, `seldon-v2` or `kubernetes`, and `wait` a number of
        seconds. Keywords are the options of `mlserver-pyfunc manifest`, such as `replicas=2`.

        Raises:
            ManifestError: The function or the options do not fit the platform.
            ClusterError: The cluster refuses, or the function does not come to serve.
        """
        deployed = self.deployment(platform, kubeconfig=kubeconfig, context=context, **options)
        deployed.apply()
        if wait:
            deployed.wait(wait)
        return deployed

    def deployment(
        self,
        platform: str,
        *,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
        **options: Any,
    ) -> Deployment:
        """Returns the function's deployment on a cluster, and changes nothing: see `deploy`."""
        from .deployment import Deployment

        return Deployment(self, platform, options, kubeconfig, context)

    def serve(self, **env: str) -> Server:
        """Serves the function in a process of its own, on free ports; use `with`, or `stop`.

        The server ends with this process, however that ends. Keywords are its environment
        variables. `ServerError` has the end of its log, if it does not start.
        """
        from mlserver_pyfunc.deployment.server_process import Server

        server = Server(self.place, env)
        # Its folder must not be removed as long as the server runs.
        vars(server)["function"] = self
        return server.start()

    def __repr__(self) -> str:
        definition = self.definition
        inputs, outputs = (
            ", ".join(f"{each.name} {each.datatype} {each.shape_text}" for each in tensors)
            for tensors in (definition.inputs, definition.outputs)
        )
        tensors = f"{inputs} -> {outputs}" if outputs else "the code tells its tensors"
        return f"Function({self.name}: {tensors}; {self._origin})"

    def _repr_html_(self) -> str:
        template, definition = "client/function.html.jinja", self.definition
        return render(template, name=self.name, origin=self._origin, definition=definition)

    @cached_property
    def _described(self) -> FunctionDefinition:
        from mlserver_pyfunc.definition.derived import with_signature
        from mlserver_pyfunc.handler.signature import Signature

        definition, handler = self.opened.definition, self._handler
        if handler is None:
            return definition
        if inspect.isclass(handler):
            handler = MethodType(handler.__call__, object())
        # The load reports what the signature does not tell.
        with suppress(BindError, DefinitionError):
            return with_signature(definition, Signature.of(handler))
        return definition

    @property
    def _origin(self) -> str:
        from mlserver_pyfunc.sources.uri import redacted

        source = self.opened.definition.source
        return f"{redacted(source.source or 'inline')}:{source.handler}"

    def _loaded(self) -> LocalFunction:
        with self._lock:
            return self._local

    @cached_property
    def _local(self) -> LocalFunction:
        from mlserver_pyfunc.serving.local import LocalFunction

        local = LocalFunction(self.opened)
        weakref.finalize(self, local.abandon)
        return local


def _write(folder: Path, definition: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(definition), sort_keys=False, allow_unicode=True, width=1000)
    (folder / FILE_NAME).write_text(text, encoding="utf-8")
    (folder / MODEL_SETTINGS).write_text(SETTINGS_TEXT, encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, TensorDefinition):
        return value.model_dump(mode="json", exclude_unset=True)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
