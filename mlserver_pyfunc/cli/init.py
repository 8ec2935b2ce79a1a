"""`init`: writes a function to start from."""

from __future__ import annotations

from pathlib import Path

import click

from .failure import Failure


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option(
    "--from",
    "origin",
    metavar="MODULE.PY:FUNCTION",
    help="Describe this function by its signature, or a model file, instead of writing one.",
)
@click.option("--name", help="Name of the model.  [the folder's name]")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def command(folder: Path, origin: str | None, name: str | None, force: bool) -> None:
    """Write function.yaml, model-settings.json and, without --from, model.py into FOLDER."""
    from mlserver_pyfunc.definition import scaffold
    from mlserver_pyfunc.definition.locate import open_folder, split_function
    from mlserver_pyfunc.serving.local import with_tensors

    model_name = name or scaffold.name_of(folder)
    if model_name != "".join(model_name.split()).replace("/", ""):
        raise Failure(f'--name: expected text without spaces and slashes, got "{model_name}"')
    if origin is None:
        files = scaffold.starter(model_name)
    elif split_function(Path(origin))[1] == "":
        definition = with_tensors(open_folder(origin)).definition
        model, _ = split_function(Path(origin))
        files = scaffold.of_tensors(model_name, folder, model, definition)
    else:
        path, separator, function = origin.rpartition(":")
        if not separator or not path.endswith(".py"):
            raise click.BadParameter(f'--from: expected MODULE.PY:FUNCTION, got "{origin}"')
        files = scaffold.described(model_name, folder, Path(path), function)
    there = [file for file in files if (folder / file).exists()]
    if there and not force:
        hint = "choose another folder, or overwrite the files with --force"
        raise Failure(f"{folder}: holds {', '.join(there)} already", hint=hint)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
        click.echo(f"wrote {folder / file}")
    click.echo(f"next: mlserver-pyfunc validate {folder}")
