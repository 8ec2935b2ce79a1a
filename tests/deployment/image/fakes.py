"""Programs in the place of engines: they record how they are called."""

from __future__ import annotations

from collections.abc import Callable

ID = "sha256:" + "1" * 64
DIGEST = "sha256:" + "2" * 64

# Answers by the words of its command line, and writes the files that engines are asked to write.
PROGRAM = """#!{python}
import json, pathlib, sys
arguments = sys.argv[1:]
with open({calls!r}, "a") as calls:
    calls.write(json.dumps([{name!r}, *arguments]) + "\\n")
for argument in arguments:
    option, _, value = argument.partition("=")
    if option == "--iidfile":
        pathlib.Path(value).write_text({id!r})
    if option == "--metadata-file":
        facts = {{"config.digest": {id!r}, "digest": {digest!r}}}
        text = json.dumps({{f"containerimage.{{name}}": value for name, value in facts.items()}})
        pathlib.Path(value).write_text(text)
    if option == "--digestfile":
        pathlib.Path(value).write_text({digest!r})
for words, (code, text) in {answers!r}:
    if words in " ".join(arguments):
        print(text)
        sys.exit(code)
"""

Put = Callable[..., None]
