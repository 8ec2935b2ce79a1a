"""Answers in Markdown: as a stream, with markup that must stay text."""

import time

from mlserver_pyfunc import InferenceError

ANSWER = """\
# About {topic}

A **bold** claim, *emphasis*, `code <b>` and ~~old~~ text:

1. one
2. two
   - inner **point**

> A quotation

| name | value |
|------|------:|
| a\\|b | 1 |

```python
print("<script>document.title='run'</script>")
```

[a page](https://example.org/?q=1) [bad](javascript:document.title='run') ![x](https://example.org/x.png)
<img src=x onerror="document.title='run'"> https://example.org/bare.
"""


def answer(topic):
    if topic[0] == "nothing":
        raise InferenceError(f"**nothing** about <b>{topic[0]}</b>", 422)
    for line in ANSWER.replace("{topic}", topic[0]).splitlines(keepends=True):
        time.sleep(5 if topic[0] == "pause" else 0.01)
        yield [line]
