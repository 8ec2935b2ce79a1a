from __future__ import annotations

import inspect
import json
import linecache
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mlserver_pyfunc
from mlserver_pyfunc.handler.function_package import PREFIX, FunctionPackage


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before = (list(sys.path), list(sys.meta_path), set(sys.modules))
    yield
    after = (sys.path, sys.meta_path, {n for n in sys.modules if n.startswith(PREFIX)})
    assert after[0] == before[0], "sys.path was changed"
    left = [f for f in after[1] if f not in before[1] and "pyfunc" in type(f).__module__]
    assert not left, f"finders are left in sys.meta_path: {left}"
    assert not after[2] - before[2], "modules are left in sys.modules"


@pytest.fixture
def package_of() -> Iterator[Any]:
    """Makes packages that are closed when the test ends."""
    packages = []

    def make(root: Path, inline: dict[str, str] | None = None, name: str = "iris") -> Any:
        packages.append(FunctionPackage(name, root, inline or {}))
        return packages[-1]

    yield make
    for package in packages:
        package.close()


def write(root: Path, **files: str) -> Path:
    """Writes modules; `a__b` is `a/b.py`. All of one time, as a fast editor would."""
    for name, text in files.items():
        folder, _, module = name.replace("__init__", "INIT").rpartition("__")
        path = root / folder.replace("__", "/") / (module.replace("INIT", "__init__") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


IMPORTS = {
    "absolute": "import sibling\n\ndef f():\n    return sibling.NAME\n",
    "from": "from sibling import NAME\n\ndef f():\n    return NAME\n",
    "relative": "from . import sibling\n\ndef f():\n    return sibling.NAME\n",
    "relative from": "from .sibling import NAME\n\ndef f():\n    return NAME\n",
    "lazy": "def f():\n    import sibling\n    return sibling.NAME\n",
    "lazy from": "def f():\n    from sibling import NAME\n    return NAME\n",
    "lazy relative": "def f():\n    from . import sibling\n    return sibling.NAME\n",
    "star": "from sibling import *\n\ndef f():\n    return NAME\n",
    "alias": "import sibling as other\n\ndef f():\n    return other.NAME\n",
    "dotted": "import package.inner\n\ndef f():\n    return package.inner.NAME\n",
    "lazy dotted": "def f():\n    import package.inner\n    return package.inner.NAME\n",
    "dotted alias": "import package.inner as p\n\ndef f():\n    return p.NAME\n",
    "dotted from": "from package.inner import NAME\n\ndef f():\n    return NAME\n",
    "submodule from": "from package import inner\n\ndef f():\n    return inner.NAME\n",
    "through a sibling": "import middle\n\ndef f():\n    return middle.get()\n",
}


def _sources(root: Path, name: str, model: str) -> Path:
    named = f"NAME = {name!r}\n"
    middle = "def get():\n    import sibling\n    return sibling.NAME\n"
    return write(
        root, sibling=named, package____init__="", package__inner=named, middle=middle, model=model
    )


@pytest.mark.parametrize("form", IMPORTS)
def test_siblings_of_one_name_in_two_functions_never_meet(
    form: str, tmp_path: Path, package_of: Any
) -> None:
    first = package_of(_sources(tmp_path / "a", "a", IMPORTS[form])).load("model")
    second = package_of(_sources(tmp_path / "b", "b", IMPORTS[form])).load("model")
    assert [first.f(), second.f(), first.f(), second.f()] == ["a", "b", "a", "b"]
    assert "sibling" not in sys.modules
    assert "package" not in sys.modules


@pytest.mark.parametrize("form", IMPORTS)
def test_a_lazy_import_after_the_package_is_closed_still_finds_its_own(
    form: str, tmp_path: Path
) -> None:
    package = FunctionPackage("iris", _sources(tmp_path / "a", "a", IMPORTS[form]), {})
    model = package.load("model")
    first = model.f()
    package.close()
    assert first == "a"
    if "lazy" not in form and form != "through a sibling":
        assert model.f() == "a", "a call in flight keeps working"


def test_two_versions_of_one_function_never_meet(tmp_path: Path, package_of: Any) -> None:
    old = package_of(_sources(tmp_path / "1", "one", IMPORTS["lazy"]), name="iris").load("model")
    new = package_of(_sources(tmp_path / "2", "two", IMPORTS["lazy"]), name="iris").load("model")
    assert (new.f(), old.f()) == ("two", "one")


def test_a_module_is_loaded_once(tmp_path: Path, package_of: Any) -> None:
    package = package_of(
        write(tmp_path, model="import other\nVALUE = []\n", other="import model\n")
    )
    model = package.load("model")
    assert package.load("model") is model
    assert package.load("other").model is model
    assert model.other.model is model


def test_a_reload_runs_new_code_of_the_same_size_and_second(
    tmp_path: Path, package_of: Any
) -> None:
    root = write(tmp_path, model="import sibling\nVALUE = 1\n", sibling="VALUE = 1\n")
    old = package_of(root).load("model")
    write(tmp_path, model="import sibling\nVALUE = 2\n", sibling="VALUE = 2\n")
    new = package_of(root).load("model")
    assert (new.VALUE, new.sibling.VALUE) == (2, 2)
    assert (old.VALUE, old.sibling.VALUE) == (1, 1)
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_module_added_after_the_first_load_is_found_by_a_new_load(
    tmp_path: Path, package_of: Any
) -> None:
    root = write(tmp_path, model="def f():\n    import added\n    return added.NAME\n")
    with pytest.raises(ModuleNotFoundError):
        package_of(root).load("model").f()
    write(root, added="NAME = 'added'\n")
    assert package_of(root).load("model").f() == "added"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def f(:\n", SyntaxError),
        ("import sibling\nraise ValueError('no')\n", ValueError),
        ("import sibling\nimport no_such_library\n", ModuleNotFoundError),
        ("import sibling\nraise SystemExit(1)\n", SystemExit),
        ("from sibling import no_such_name\n", ImportError),
        ("from ...above import x\n", ImportError),
    ],
)
def test_a_failed_load_leaves_nothing_behind(
    code: str, error: type[BaseException], tmp_path: Path
) -> None:
    package = FunctionPackage("iris", write(tmp_path, model=code, sibling="X = 1\n"), {})
    with pytest.raises(error):
        package.load("model")
    package.close()


def test_a_failed_load_leaves_others_as_they_are(tmp_path: Path, package_of: Any) -> None:
    good = package_of(_sources(tmp_path / "a", "a", IMPORTS["lazy"])).load("model")
    bad = FunctionPackage("iris", write(tmp_path / "b", model="raise ValueError('no')\n"), {})
    with pytest.raises(ValueError, match="no"):
        bad.load("model")
    bad.close()
    assert good.f() == "a"


def test_closing_twice_or_unloaded_is_no_error(tmp_path: Path) -> None:
    package = FunctionPackage("iris", tmp_path, {})
    package.close()
    package.close()


def test_a_module_that_is_not_there_is_named(tmp_path: Path, package_of: Any) -> None:
    with pytest.raises(ModuleNotFoundError, match="absent"):
        package_of(tmp_path).load("absent")


def test_installed_libraries_and_the_standard_one_are_imported_as_ever(
    tmp_path: Path, package_of: Any
) -> None:
    code = "import json, os.path\nimport numpy as np\nfrom numpy import linalg\n"
    module = package_of(write(tmp_path, model=code)).load("model")
    assert module.json is sys.modules["json"]
    assert module.os is os
    assert module.np is sys.modules["numpy"]
    assert module.linalg is sys.modules["numpy.linalg"]


def test_a_sibling_goes_before_an_installed_library_and_only_for_its_function(
    tmp_path: Path, package_of: Any
) -> None:
    write(tmp_path, model="import json\n\ndef f():\n    import yaml\n    return yaml, json\n")
    write(tmp_path, yaml="MINE = True\n", json="MINE = True\n")
    mine = package_of(tmp_path).load("model").f()
    assert all(module.MINE for module in mine)
    import yaml

    assert not hasattr(yaml, "MINE")
    assert not hasattr(json, "MINE")


@pytest.mark.parametrize("name", ["mlserver_pyfunc", "mlserver_pyfunc____init__"])
def test_a_sibling_of_the_runtimes_name_is_refused(
    name: str, tmp_path: Path, package_of: Any
) -> None:
    write(tmp_path, **{name: "MINE = True\n"}, model="from mlserver_pyfunc import InferenceError\n")
    with pytest.raises(ImportError, match=r'has a module "mlserver_pyfunc".* rename it'):
        package_of(tmp_path).load("model")
    write(tmp_path / "below", **{f"inner__{name}": "MINE = True\n"})
    write(tmp_path / "below", model="from inner import mlserver_pyfunc as m\n")
    assert package_of(tmp_path / "below").load("model").m.MINE


def test_the_runtime_itself_beside_the_code_is_no_sibling(package_of: Any) -> None:
    root = Path(mlserver_pyfunc.__file__).parents[1]
    module = package_of(root, {"own": "from mlserver_pyfunc import InferenceError"}).load("own")
    assert module.InferenceError is mlserver_pyfunc.InferenceError


def test_a_sibling_called_numpy_is_the_functions_alone(tmp_path: Path, package_of: Any) -> None:
    write(tmp_path, numpy="MINE = True\n", model="import numpy\nfrom packaging import version\n")
    module = package_of(tmp_path).load("model")
    assert module.numpy.MINE
    import numpy

    assert numpy.asarray([1]).sum() == 1


def test_a_built_in_module_cannot_be_hidden(tmp_path: Path, package_of: Any) -> None:
    package = package_of(write(tmp_path, model="import sys\n", sys="MINE = True\n"))
    assert package.load("model").sys is sys


def test_packages_nested_packages_and_namespace_packages(tmp_path: Path, package_of: Any) -> None:
    root = write(
        tmp_path,
        pkg____init__="from .a import NAME\n",
        pkg__a="from .deep.b import NAME\n",
        pkg__deep____init__="",
        pkg__deep__b="from ... import top\nfrom ..c import C\nNAME = (top.TOP, C)\n",
        pkg__c="C = 'c'\n",
        top="TOP = 'top'\n",
        space__d="import pkg\nNAME = pkg.NAME\n",
    )
    package = package_of(root)
    assert package.load("pkg").NAME == ("top", "c")
    assert package.load("pkg.deep.b").NAME == ("top", "c")
    assert package.load("space.d").NAME == ("top", "c")


def test_a_source_whose_root_is_a_package_itself(tmp_path: Path, package_of: Any) -> None:
    root = write(tmp_path, __init__="VALUE = 'root'\n", model="from . import VALUE, sibling\n")
    write(root, sibling="X = 1\n")
    module = package_of(root).load("model")
    assert (module.VALUE, module.sibling.X) == ("root", 1)


def test_inline_code_imports_files_beside_it_and_hides_one_of_its_name(
    tmp_path: Path, package_of: Any
) -> None:
    write(tmp_path, sibling="NAME = 'file'\n", function="NAME = 'hidden'\n")
    code = "import sibling\nfrom . import sibling as same\nNAME = 'inline'\n"
    module = package_of(tmp_path, {"function": code}).load("function")
    assert (module.NAME, module.sibling.NAME) == ("inline", "file")
    assert module.same is module.sibling


def test_inline_code_may_be_a_module_of_a_package(tmp_path: Path, package_of: Any) -> None:
    package = package_of(tmp_path, {"a.b.model": "NAME = __name__\n"})
    assert package.load("a.b.model").NAME.endswith(".a.b.model")


def test_tracebacks_show_the_lines_of_inline_code(tmp_path: Path, package_of: Any) -> None:
    code = "def f():\n    raise ValueError('here')  # the very line\n"
    module = package_of(tmp_path, {"function": code}).load("function")
    with pytest.raises(ValueError, match="here") as caught:
        module.f()
    assert "# the very line" in "".join(traceback.format_exception(caught.value))


def test_tracebacks_name_the_file(tmp_path: Path, package_of: Any) -> None:
    module = package_of(write(tmp_path, model="def f():\n    return 1 / 0  # line\n")).load("model")
    with pytest.raises(ZeroDivisionError) as caught:
        module.f()
    text = "".join(traceback.format_exception(caught.value))
    assert str(tmp_path / "model.py") in text
    assert "# line" in text


def test_a_module_knows_its_file(tmp_path: Path, package_of: Any) -> None:
    module = package_of(write(tmp_path, model="HERE = __file__\n")).load("model")
    assert Path(module.HERE) == tmp_path / "model.py"


def test_importlib_inside_a_handler_finds_siblings_by_relative_name(
    tmp_path: Path, package_of: Any
) -> None:
    code = "from importlib import import_module\n\ndef f():\n"
    code += "    return import_module('.sibling', __package__)\n"
    module = package_of(write(tmp_path, model=code, sibling="NAME = 's'\n")).load("model")
    assert module.f().NAME == "s"


def test_an_instance_of_a_sibling_class_can_be_pickled_while_loaded(
    tmp_path: Path, package_of: Any
) -> None:
    import pickle

    module = package_of(write(tmp_path, model="class Thing:\n    value = 3\n")).load("model")
    assert pickle.loads(pickle.dumps(module.Thing())).value == 3


def test_dataclasses_and_annotations_resolve_in_their_own_module(
    tmp_path: Path, package_of: Any
) -> None:
    code = (
        "from __future__ import annotations\n"
        "import dataclasses, typing\n\n"
        "@dataclasses.dataclass\n"
        "class Point:\n    x: int\n    next: Point | None = None\n\n"
        "HINTS = typing.get_type_hints(Point)\n"
    )
    module = package_of(write(tmp_path, model=code)).load("model")
    assert module.HINTS["x"] is int


@pytest.mark.parametrize("name", ["a-b.c", "0", "\u00e9", "x/y"])
def test_any_model_name_makes_a_package_name(name: str, tmp_path: Path, package_of: Any) -> None:
    package = package_of(write(tmp_path, model="VALUE = 1\n"), name=name)
    assert package.load("model").VALUE == 1
    assert package.name.isidentifier()


def test_a_folder_without_init_is_a_sibling_of_two_functions(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "shared").mkdir(parents=True)
        (tmp_path / name / "shared" / "rules.py").write_text(f"NAME = {name!r}\n")
        (tmp_path / name / "main.py").write_text("from shared.rules import NAME\n")
    packages = [FunctionPackage(name, tmp_path / name, {}) for name in ("one", "two")]
    try:
        assert [package.load("main").NAME for package in packages] == ["one", "two"]
    finally:
        for package in packages:
            package.close()


def test_the_lines_of_inline_code_go_with_the_package(tmp_path: Path) -> None:
    code = "def f():\n    first = 1\n    return first\n"
    package = FunctionPackage("iris", tmp_path, {"function": code})
    function = package.load("function").f
    assert inspect.getsource(function) == code
    file = inspect.getfile(function)
    package.close()
    assert file not in linecache.cache


def test_it_finds_no_module_of_another_package(tmp_path: Path, package_of: Any) -> None:
    assert package_of(tmp_path).find_spec("json.decoder", json.__path__) is None


def test_inline_code_of_a_package_imports_files_in_its_folder(
    tmp_path: Path, package_of: Any
) -> None:
    write(tmp_path, a__other="NAME = 'file'\n")
    module = package_of(tmp_path, {"a.model": "from .other import NAME\n"}).load("a.model")
    assert module.NAME == "file"


def test_a_package_may_add_a_folder_to_its_path(tmp_path: Path, package_of: Any) -> None:
    write(tmp_path, pkg____init__=f"__path__.append({str(tmp_path / 'far')!r})\n")
    write(tmp_path, far__away="from json import NAME\n", json="NAME = 'sibling'\n")
    package = package_of(write(tmp_path, model="from pkg.away import NAME\n"))
    assert package.load("model").NAME == "sibling"


@pytest.mark.parametrize("name", ["helper", "pkg.deep.helper"])
def test_inline_modules_import_each_other(name: str, tmp_path: Path, package_of: Any) -> None:
    inline = {"function": f"import {name} as found\nNAME = found.NAME\n", name: "NAME = 1\n"}
    assert package_of(tmp_path, inline).load("function").NAME == 1


def test_a_folder_without_init_comes_after_what_is_loaded(
    tmp_path: Path, package_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ModuleType("made_by_hand")
    monkeypatch.setitem(sys.modules, "made_by_hand", made)
    write(tmp_path, made_by_hand__inner="", model="import made_by_hand\n")
    assert package_of(tmp_path).load("model").made_by_hand is made


def test_a_folder_without_init_comes_after_what_is_installed(
    tmp_path: Path, package_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "installed", only_installed="NAME = 'installed'\n")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    root = write(tmp_path / "tree", only_installed__inner="", model="import only_installed as m\n")
    try:
        assert package_of(root).load("model").m.NAME == "installed"
    finally:
        sys.modules.pop("only_installed", None)


def test_a_finder_that_fails_hides_no_folder(
    tmp_path: Path, package_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "only_here":
                raise ValueError(name)

    monkeypatch.setattr(sys, "meta_path", [Failing(), *sys.meta_path])
    write(tmp_path, only_here__inner="NAME = 1\n", model="from only_here.inner import NAME\n")
    package = package_of(tmp_path)
    assert package.load("model").NAME == 1
    package.close()
