// Writes the current request as a call by curl, plain Python, tritonclient and kserve.

const NUMPY = { BOOL: "bool", BYTES: "object", FP16: "float16", FP32: "float32", FP64: "float64" };
const numpyName = (datatype) => NUMPY[datatype] ?? datatype.toLowerCase();
const python = (text) => text.replace(/\btrue\b/g, "True").replace(/\bfalse\b/g, "False").replace(/\bnull\b/g, "None");
const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function snippets(model, body, origin) {
  const path = model.streams ? "infer_stream" : "infer";
  const url = `${origin}/v2/models/${encodeURIComponent(model.name)}/${path}`;
  const request = JSON.parse(body, (key, value, context) =>
    typeof value === "number" ? { source: context?.source ?? String(value) } : value);
  const source = (value) => (typeof value === "object" && value !== null ? value.source : JSON.stringify(value));
  const inputs = request.inputs.map((tensor) => ({
    name: JSON.stringify(tensor.name),
    datatype: tensor.datatype,
    shape: `[${tensor.shape.map(source).join(", ")}]`,
    data: tensor.datatype === "BOOL" ? python(tensor.data.map(source).join(", ")) : tensor.data.map(source).join(", "),
    isBase64: tensor.parameters?.content_type === "base64",
  }));
  const array = (t) => {
    const data = t.isBase64 ? `[base64.b64decode(item) for item in [${t.data}]]` : `[${t.data}]`;
    return `np.array(${data}, dtype=np.${t.datatype === "BYTES" ? "object_" : t.datatype === "BOOL" ? "bool_" : numpyName(t.datatype)}).reshape(${t.shape})`;
  };
  const needsBase64 = inputs.some((t) => t.isBase64) ? "import base64\n\n" : "";
  const outputs = model.outputs.map((t) => JSON.stringify(t.name));
  return [
    ["curl", `curl ${model.streams ? "-N " : ""}-s ${shellQuoted(url)} \\\n  -H 'Content-Type: application/json' \\\n  -d ${shellQuoted(body)}`],
    ["Python", `import json\nimport urllib.request\n\nbody = json.loads(r'''${body.replaceAll("'''", "\\u0027\\u0027\\u0027")}''')\nrequest = urllib.request.Request(\n    ${JSON.stringify(url)},\n    json.dumps(body).encode(),\n    {"Content-Type": "application/json"},\n)\nwith urllib.request.urlopen(request) as response:\n    ${model.streams ? "for line in response:\n        print(line.decode(), end=\"\")" : "print(json.load(response))"}`],
    ["tritonclient", `${needsBase64}import numpy as np\nimport tritonclient.http as triton\n\nclient = triton.InferenceServerClient(${JSON.stringify(origin.replace(/^https?:\/\//, ""))}${origin.startsWith("https") ? ", ssl=True" : ""})\ninputs = []\n${inputs.map((t) => `array = ${array(t)}\ntensor = triton.InferInput(${t.name}, list(array.shape), "${t.datatype}")\ntensor.set_data_from_numpy(array)\ninputs.append(tensor)`).join("\n")}\nresult = client.infer(${JSON.stringify(model.name)}, inputs)\n${outputs.map((name) => `print(result.as_numpy(${name}))`).join("\n")}`],
    ["kserve", `${needsBase64}import asyncio\n\nimport numpy as np\nfrom kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig\n\n\nasync def main():\n    client = InferenceRESTClient(RESTConfig(protocol="v2"))\n    inputs = []\n${inputs.map((t) => `    array = ${array(t)}\n    tensor = InferInput(${t.name}, list(array.shape), "${t.datatype}")\n    tensor.set_data_from_numpy(array, binary_data=True)\n    inputs.append(tensor)`).join("\n")}\n    request = InferRequest(infer_inputs=inputs, model_name=${JSON.stringify(model.name)})\n    print(await client.infer(${JSON.stringify(origin)}, request, model_name=${JSON.stringify(model.name)}))\n\n\nasyncio.run(main())`],
  ];
}

function showSnippets(box, model, body, origin) {
  const shown = body.length < 20000 ? snippets(model, body, origin) : [["curl", "The request is too long to show."]];
  const view = (text) => () => {
    const button = make("button", { type: "button", class: "small copy", onclick: () => copyText(text, button) }, "Copy");
    return make("div", { class: "code" }, button, make("pre", { tabindex: "0", class: "wrap" }, ...highlighted(text)));
  };
  const selected = box.querySelector("[aria-selected=true]")?.textContent;
  box.replaceChildren(tabs("Clients", shown.map(([name, text]) => [name, view(text)])));
  [...box.querySelectorAll("[role=tab]")].find((tab) => tab.textContent === selected)?.click();
}

// Marks strings, comments and words of the languages. The text stays as it is.
function highlighted(text) {
  const kinds = /("""[\s\S]*?"""|'''[\s\S]*?'''|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(#.*)|\b(import|from|as|async|await|def|return|with|for|in|print|True|False|None|curl)\b/g;
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(kinds)) {
    parts.push(text.slice(end, found.index));
    parts.push(make("span", { class: found[1] ? "string" : found[2] ? "comment" : "word" }, found[0]));
    end = found.index + found[0].length;
  }
  return [...parts, text.slice(end)];
}
