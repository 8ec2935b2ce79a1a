"""Environments by uv: found, made once, shared, pruned; and what goes wrong with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlserver_pyfunc.definition import FunctionDefinition, parse
from mlserver_pyfunc.environments import uv
from mlserver_pyfunc.environments.environment import provide, prune, resolve, unmet_needs
from mlserver_pyfunc.environments.uv import find_uv
from mlserver_pyfunc.errors import LoadError, PyFuncError
from mlserver_pyfunc.serving.function import Function
from mlserver_pyfunc.sources import lock
from tests.needs import HERE, OTHER
from tests.serving.workers.functions import DOUBLE, call, definition, loaded

needs_other = pytest.mark.needs(f"Python {OTHER}")

SMALL = ["numpy", "iniconfig==2.0.0"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of ours; uv keeps what it has downloaded before."""
    downloads = subprocess.run(
        [find_uv(), "cache", "dir"], capture_output=True, text=True, check=True
    )
    monkeypatch.setenv("UV_CACHE_DIR", downloads.stdout.strip())
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def needs(python: str | None = None, *requirements: str, **more: Any) -> FunctionDefinition:
    fields = definition(DOUBLE, requirements=list(requirements), **more)
    return parse({**fields, "python_version": python})


def environments(cache: Path) -> list[Path]:
    folder = cache / "environments"
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


@pytest.mark.parametrize(
    ("python", "requirements", "unmet"),
    [
        (None, [], []),
        (HERE, ["numpy>=1.20", "pytest; python_version < '3'"], []),
        (OTHER, [], [f"expected Python {OTHER}, the server runs {HERE}"]),
        (None, ["numpy>=1000"], ['expected "numpy>=1000", installed is']),
        (None, ["no-such-package-here"], ['"no-such-package-here" is not installed']),
    ],
)
def test_lists_what_the_serving_interpreter_has_not(
    python: str | None, requirements: list[str], unmet: list[str]
) -> None:
    found = unmet_needs(needs(python, *requirements))
    assert len(found) == len(unmet)
    for line, expected in zip(found, unmet, strict=True):
        assert expected in line


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages "outer" and "inner" on sys.path; an extra of "inner" needs what is not there."""
    about = {
        "outer": [
            "Provides-Extra: All_Of",
            "Provides-Extra: fine",
            "Provides-Extra: elsewhere",
            "Requires-Dist: no-such-package-here; sys_platform == 'nowhere'",
            "Requires-Dist: inner>=1; extra == 'fine'",
            "Requires-Dist: no-such-package-here; extra == 'elsewhere' and os_name == 'none'",
            "Requires-Dist: outer[fine,all-of]; extra == 'all-of'",
            "Requires-Dist: inner[deep]>=1; extra == 'all-of'",
        ],
        "inner": [
            "Provides-Extra: deep",
            "Provides-Extra: new",
            "Requires-Dist: no-such-package-here>=2; extra == 'deep'",
            "Requires-Dist: outer>=9; extra == 'new'",
        ],
    }
    for name, lines in about.items():
        folder = tmp_path / "packages" / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        head = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
        (folder / "METADATA").write_text("\n".join([*head, *lines]) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))


@pytest.mark.parametrize(
    ("requirement", "unmet"),
    [
        ("outer", None),
        ("outer[fine]", None),
        ("outer[elsewhere]", None),
        ("outer[all-of]", '"outer[all-of]" needs more: "inner[deep]>=1" needs more: '
         '"no-such-package-here>=2" is not installed'),
        ("Outer[ALL_of]>=1", '"no-such-package-here>=2" is not installed'),
        ("inner[new]", '"inner[new]" needs more: expected "outer>=9", installed is 1.0'),
        ("inner[other]", '"inner[other]": installed inner 1.0 has no such extra'),
        ("inner[deep]; python_version < '3'", None),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("packages")
def test_an_extra_asks_for_its_own_requirements(requirement: str, unmet: str | None) -> None:
    found = unmet_needs(needs(None, requirement))
    assert len(found) == (unmet is not None), found
    assert unmet is None or unmet in found[0]


@needs_other
async def test_auto_takes_the_serving_interpreter_where_it_will_do() -> None:
    async with loaded(DOUBLE, isolation="auto", requirements=["numpy>=1.20"]) as function:
        assert function.metadata["isolation"] == "none"
    async with loaded(DOUBLE, isolation="auto", python_version=OTHER) as function:
        assert function.metadata["isolation"] == "process"
        assert function.metadata["python"].startswith(OTHER)
        assert (await call(function, 2)).tolist() == [4]


async def test_none_with_unmet_needs_is_a_load_error_that_lists_them() -> None:
    more = {"python_version": OTHER, "requirements": ["numpy>=1000", "no-such-package-here"]}
    with pytest.raises(LoadError) as raised:
        async with loaded(DOUBLE, isolation="none", **more):
            pass
    for part in ("environment: ", f"expected Python {OTHER}", "numpy>=1000", "no-such-package"):
        assert part in str(raised.value)


@needs_other
def test_equal_needs_share_an_environment_that_is_made_once(cache: Path) -> None:
    first = provide(needs(OTHER, *SMALL), "a")
    again = provide(needs(OTHER, *reversed(SMALL)), "b")
    assert first.python == again.python
    assert first.seconds > 0
    assert again.seconds == 0
    assert again.resolved["iniconfig"] == "2.0.0"
    assert len(environments(cache)) == 1


@needs_other
def test_an_environment_that_is_there_needs_no_uv(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    made = provide(needs(OTHER, *SMALL), "a")
    monkeypatch.setenv("PATH", str(uv.find_python(OTHER).parent))
    monkeypatch.setitem(sys.modules, "uv", None)
    assert provide(needs(OTHER, *SMALL), "b").python == made.python


@needs_other
def test_numpy_is_there_though_nobody_asked(cache: Path) -> None:
    made = provide(needs(OTHER), "a")
    assert set(made.resolved) == {"numpy"}
    code = "import numpy, sys; print('%d.%d' % sys.version_info[:2])"
    said = subprocess.run([made.python, "-I", "-c", code], capture_output=True, text=True)
    assert said.stdout.strip() == OTHER


PROVIDE = """
import json, logging, sys
from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.environments.environment import provide
made = provide(parse(json.loads(sys.argv[1])), "subject")
print(made.python, made.seconds > 0)
"""


def start_providing(requirements: list[str], **env: str) -> subprocess.Popen[str]:
    fields = {**definition(DOUBLE, requirements=requirements), "python_version": OTHER}
    return subprocess.Popen(
        [sys.executable, "-c", PROVIDE, json.dumps(fields)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
        start_new_session=True,
    )


@needs_other
def test_of_many_processes_one_makes_it(cache: Path) -> None:
    processes = [start_providing(SMALL) for _ in range(4)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    made = [out.split() for out, _ in said]
    assert len({python for python, _ in made}) == 1
    assert sum(built == "True" for _, built in made) == 1


@needs_other
@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.2])
def test_one_killed_half_way_leaves_nothing_half(seconds: float, cache: Path) -> None:
    process = start_providing(SMALL)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    made = provide(needs(OTHER, *SMALL), "a")
    assert made.resolved["iniconfig"] == "2.0.0"
    code = "import numpy, iniconfig"
    subprocess.run([made.python, "-I", "-c", code], check=True)


@needs_other
def test_without_a_home_and_on_a_read_only_root(cache: Path, tmp_path: Path) -> None:
    process = start_providing(
        SMALL, HOME="/nonexistent", XDG_CACHE_HOME="/nonexistent", UV_CACHE_DIR=str(cache / "uv")
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.startswith(str(cache))


@needs_other
def test_a_cache_that_cannot_be_written_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE", str(tmp_path / "file"))
    with pytest.raises(PyFuncError, match=r"cache folder .*set MLSERVER_PYFUNC_CACHE"):
        provide(needs(OTHER, *SMALL), "a")


@needs_other
@pytest.mark.parametrize(
    ("requirements", "said"),
    [
        (["numpy==1.26.4", "numpy==2.1.0"], "unsatisfiable"),
        (["iniconfig==999"], "there is no version of iniconfig==999"),
        (["no-such-package-for-tests"], "no-such-package-for-tests was not found"),
    ],
)
async def test_errors_carry_uvs_explanation_and_name_the_function(
    requirements: list[str], said: str, cache: Path
) -> None:
    pattern = f'function "subject" failed to load: environment: .*{said}'
    with pytest.raises(LoadError, match=pattern) as raised:
        async with loaded(DOUBLE, python_version=OTHER, requirements=requirements):
            pass
    assert "\n" not in str(raised.value)
    assert environments(cache) == []


@needs_other
def test_no_network_is_told(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://me:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", str(cache / "uv"))
    with pytest.raises(PyFuncError, match=r"127\.0\.0\.1:9") as raised:
        provide(needs(OTHER, "iniconfig==2.0.0"), "a")
    assert "secret" not in str(raised.value)


def test_a_python_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("PATH", str(Path(uv.find_uv()).parent))
    monkeypatch.setenv("PYENV_ROOT", str(cache))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(cache / "pythons"))
    with pytest.raises(PyFuncError, match=f"no Python {OTHER} on this machine.*PYTHON_DOWNLOADS"):
        provide(needs(OTHER), "a")


def test_that_uv_is_not_there_is_told_with_what_needs_it(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PyFuncError) as raised:
        provide(needs(None, "no-such-package-here"), "a")
    assert str(raised.value) == (
        "uv is not installed, which could make an environment of its own for the function "
        '("no-such-package-here" is not installed): pip install uv'
    )


@needs_other
def test_only_what_nobody_uses_is_pruned(cache: Path) -> None:
    made = provide(needs(OTHER, *SMALL), "a")
    other = start_providing(["numpy", "iniconfig==1.1.1"])
    out, err = other.communicate(timeout=120)
    assert other.returncode == 0, err
    assert len(environments(cache)) == 2
    removed = prune()
    assert [str(path) for path in removed] == [str(Path(out.split()[0]).parent.parent)]
    assert made.python.exists()
    assert len(environments(cache)) == 1


@needs_other
def test_a_broken_environment_is_made_anew(cache: Path) -> None:
    made = provide(needs(OTHER, *SMALL), "a")
    made.python.unlink()
    again = provide(needs(OTHER, *SMALL), "a")
    assert again.seconds > 0
    assert again.python.exists()


def test_pips_settings_are_uvs_where_uv_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://one/simple\nextra-index-url =\n  https://two/simple\n"
        "  https://three/simple\ntimeout = 9\n"
    )
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_FIND_LINKS", "/a /b")
    found = uv._environment()
    assert found["UV_DEFAULT_INDEX"] == "https://one/simple"
    assert found["UV_INDEX"] == "https://two/simple https://three/simple"
    assert found["UV_FIND_LINKS"] == "/a,/b"
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine/simple")
    found = uv._environment()
    assert found["UV_DEFAULT_INDEX"] == "https://mine/simple"
    assert "UV_INDEX" not in found


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"memory_limit": "512M"}, 512 * 2**20),
        ({"memory_limit": "1.5 GiB"}, int(1.5 * 2**30)),
        ({"memory_limit": 2**30}, 2**30),
        ({"max_requests": "100"}, 100),
        ({"idempotent": "true"}, True),
        ({"init_timeout": "5"}, 5),
        ({"batch": "{max_size: 8, max_delay_ms: 2}"}, {"max_size": 8, "max_delay_ms": 2}),
    ],
)
def test_keys_of_serving_may_come_as_text(given: dict[str, Any], read: Any) -> None:
    serving = needs(**given).serving.model_dump()
    assert [serving[key] for key in given] == [read]


@pytest.mark.parametrize(
    "given",
    [
        {"memory_limit": "lots"},
        {"memory_limit": 5},
        {"max_requests": 0},
        {"batch": {"max_size": 1}},
        {"batch": {"max_size": 4, "max_delay": 1}},
        {"init_timeout": 0},
    ],
)
def test_keys_of_serving_are_checked(given: dict[str, Any]) -> None:
    with pytest.raises(PyFuncError, match=f"serving.{next(iter(given))}"):
        needs(**given)


@needs_other
async def test_a_lock_keeps_the_versions_that_were_resolved(tmp_path: Path) -> None:
    folder = tmp_path / "function"
    folder.mkdir()
    subject = needs(OTHER, "numpy", "iniconfig<2.1")
    path = lock.write(subject, folder, resolve(subject, folder))
    locked = lock.read(folder)
    assert locked is not None
    assert locked.resolved is not None
    assert "iniconfig==2.0.0" in locked.resolved
    path.write_text(path.read_text().replace("iniconfig==2.0.0", "iniconfig==1.1.1"))
    function = Function(subject, folder, "subject")
    await function.load()
    try:
        assert function.metadata["isolation"] == "process"
    finally:
        await function.close()
    (made,) = environments(tmp_path / "cache")
    facts = json.loads((made / "pyfunc.json").read_text())
    assert facts["resolved"]["iniconfig"] == "1.1.1"


def test_what_runs_on_the_serving_interpreter_locks_no_versions(tmp_path: Path) -> None:
    subject = needs(None, "numpy")
    lock.write(subject, tmp_path, resolve(subject, tmp_path))
    locked = lock.read(tmp_path)
    assert locked is not None
    assert locked.resolved is None
