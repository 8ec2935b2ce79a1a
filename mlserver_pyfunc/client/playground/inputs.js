// Builds the form of the request: one editor per declared input, which returns {shape, data, parameters}.
// Elements are kept as JSON text, so that 64-bit integers keep every digit.

const LIMITS = {
  UINT8: [0, 255], UINT16: [0, 65535], UINT32: [0, 4294967295], UINT64: [0, 1000000],
  INT8: [-128, 127], INT16: [-1000, 1000], INT32: [-1000, 1000], INT64: [-1000, 1000],
};
const WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"];
const isBytes = (tensor) => tensor.datatype === "BYTES";
const isFloat = (tensor) => tensor.datatype.startsWith("FP");
const product = (shape) => shape.reduce((a, b) => a * b, 1);

function randomElement(tensor) {
  if (isBytes(tensor)) return JSON.stringify(WORDS[Math.floor(Math.random() * WORDS.length)]);
  if (tensor.datatype === "BOOL") return String(Math.random() < 0.5);
  if (isFloat(tensor)) return (Math.random() * 10).toFixed(2);
  const [low, high] = LIMITS[tensor.datatype];
  return String(Math.floor(low + Math.random() * (high - low + 1)));
}

// Sends text that is no JSON value as a string, so that the server says what is wrong with it.
function element(tensor, text) {
  if (isBytes(tensor)) return JSON.stringify(text);
  const trimmed = text.trim();
  return /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$|^(true|false|null)$/.test(trimmed) ? trimmed : JSON.stringify(trimmed);
}

function editor(tensor) {
  const fixedColumns = tensor.shape.at(-1);
  const rank = tensor.shape.length;
  const isGrid = !isBytes(tensor) && rank >= 1 && rank <= 2 && fixedColumns > 0 && fixedColumns <= 12 &&
    (rank === 1 || tensor.shape[0] === -1 || tensor.shape[0] <= 12);
  const inner = isGrid ? gridEditor(tensor) : textEditor(tensor);
  const send = tensor.optional && make("input", { type: "checkbox", id: newId() });
  const legend = make("legend", {}, tensor.name, " ", make("span", { class: "type" }, `${tensor.datatype} ${tensor.shape_text}`));
  const box = make("fieldset", {}, legend, make("div", {}));
  if (tensor.description) box.append(make("p", { class: "note" }, tensor.description));
  if (send) box.append(make("p", { class: "tools" }, make("label", {}, send, " send this optional input")));
  box.append(...inner.parts);
  inner.randomise();
  if (tensor.example) inner.show(tensor.example);
  return {
    tensor, box,
    randomise: inner.randomise,
    get isSent() { return !send || send.checked; },
    value: inner.value,
  };
}

function gridEditor(tensor) {
  const columns = tensor.shape.at(-1);
  const labels = tensor.labels?.length === columns ? tensor.labels : null;
  const isOpen = tensor.shape.length === 2 && tensor.shape[0] === -1;
  const startRows = tensor.shape.length === 1 ? 1 : isOpen ? 1 : tensor.shape[0];
  const head = make("tr", {}, ...Array.from({ length: columns }, (_, i) => make("th", { scope: "col" }, labels?.[i] ?? String(i))));
  const body = make("tbody");
  const cells = () => [...body.rows].map((row) => [...row.querySelectorAll("input")]);
  function addRow() {
    const row = body.rows.length;
    body.append(make("tr", {}, ...Array.from({ length: columns }, (_, column) => {
      const input = make("input", { type: "text", inputmode: "decimal", "aria-label": `${tensor.name}, row ${row}, column ${column}`, value: "0" });
      return make("td", { class: columns < 3 ? "wide" : null }, input);
    })));
  }
  const fill = () => cells().flat().forEach((cell) => { cell.value = randomElement(tensor); });
  for (let i = 0; i < startRows; i++) addRow();
  const scroll = make("div", { class: "scroll" }, make("table", { class: "grid" }, make("thead", {}, head), body));
  const tools = make("div", { class: "tools" });
  const rows = (n) => { while (body.rows.length < n) addRow(); while (body.rows.length > n) body.lastChild.remove(); };
  if (isOpen) {
    tools.append(
      make("button", { type: "button", class: "small", onclick: addRow }, "Add row"),
      make("button", { type: "button", class: "small", onclick: () => rows(Math.max(body.rows.length - 1, 0)) }, "Remove row"),
      fileButton(tensor, async (file) => {
        const values = parseRows(await file.text());
        rows(values.length);
        values.forEach((row, r) => row.forEach((value, c) => { const cell = cells()[r]?.[c]; if (cell) cell.value = value; }));
      }, ".csv,.json,.txt"));
  }
  return {
    parts: [scroll, tools],
    randomise: fill,
    show: ({ shape, data }) => {
      if (isOpen) rows(shape[0]);
      cells().flat().forEach((cell, index) => { cell.value = data[index]; });
    },
    value: () => {
      const rows = cells();
      const data = rows.flat().map((cell) => element(tensor, cell.value));
      return { shape: tensor.shape.length === 1 ? [columns] : [rows.length, columns], data };
    },
  };
}

function parseRows(text) {
  try {
    const value = JSON.parse(text);
    return (Array.isArray(value[0]) ? value : [value]).map((row) => row.map(String));
  } catch {
    return text.trim().split(/\r?\n/).map((line) => line.split(/[,;\t]/).map((cell) => cell.trim()))
      .filter((row) => row.some((cell) => cell !== "" && !Number.isNaN(Number(cell))));
  }
}

function fileButton(tensor, read, accept) {
  const input = make("input", { type: "file", "aria-label": `${tensor.name} from a file` });
  if (accept) input.accept = accept;
  input.addEventListener("change", async () => {
    try {
      if (input.files[0]) await read(input.files[0]);
    } catch (error) {
      showError(`"${input.files[0].name}" cannot be read: ${error.message}`);
    }
  });
  return input;
}

function textEditor(tensor) {
  const open = tensor.shape.map((size, axis) => [size, axis]).filter(([size]) => size === -1);
  const sizes = new Map(open.map(([, axis]) => [axis, make("input", { type: "number", min: "0", value: "1", "aria-label": `${tensor.name}, size of axis ${axis}` })]));
  const hint = isBytes(tensor) ? "One element a line." : "Numbers in row-major order, by commas or spaces.";
  const area = make("textarea", { "aria-label": tensor.name, spellcheck: "false", placeholder: hint });
  let fileContent = null; // {data, parameters} of the file that was read; typing replaces it
  area.addEventListener("input", () => { fileContent = null; });
  const shape = () => tensor.shape.map((size, axis) => (size === -1 ? Number(sizes.get(axis).value) : size));
  const setSizes = (values) => values.forEach((value, axis) => { if (sizes.has(axis)) sizes.get(axis).value = value; });
  const show = (elements) => {
    const shown = elements.slice(0, 4000).join(", ");
    area.value = elements.length > 4000 ? `${shown}, ... ${elements.length} in all` : shown;
    fileContent = elements.length > 4000 ? { data: elements } : null;
  };
  async function fromFile(file) {
    if (isBytes(tensor)) {
      const data = await base64Of(file);
      fileContent = { data: [JSON.stringify(data)], parameters: { content_type: "base64" } };
      area.value = `${file.name}, ${file.size} bytes`;
      setSizes(tensor.shape.map(() => 1));
      return;
    }
    if (file.type.startsWith("image/")) {
      const picture = await pixelsOf(file, tensor);
      setSizes(picture.shape);
      show(picture.data);
      return;
    }
    const rows = parseRows(await file.text());
    if (sizes.has(0)) sizes.get(0).value = tensor.shape.length === 1 ? rows.flat().length : rows.length;
    show(rows.flat());
  }
  const tools = make("div", { class: "tools" });
  if (sizes.size) tools.append("Sizes of open axes", ...sizes.values());
  const accept = isBytes(tensor) ? "" : ".csv,.json,.txt,image/*";
  tools.append(fileButton(tensor, fromFile, accept));
  const value = () => {
    if (fileContent) return { shape: shape(), ...fileContent };
    if (isBytes(tensor)) {
      const lines = product(shape()) === 1 ? [area.value] : area.value === "" ? [] : area.value.split("\n");
      if (open.length === 1 && tensor.shape.length === 1) sizes.get(0).value = lines.length;
      return { shape: shape(), data: lines.map((line) => element(tensor, line)) };
    }
    const words = area.value.replace(/[[\]]/g, " ").split(/[\s,]+/).filter(Boolean);
    if (open.length === 1) {
      const rest = product(tensor.shape.filter((size) => size !== -1)) || 1;
      sizes.get(open[0][1]).value = Math.ceil(words.length / rest);
    }
    return { shape: shape(), data: words.map((word) => element(tensor, word)) };
  };
  const randomise = () => {
    const elements = Array.from({ length: product(shape()) }, () => randomElement(tensor));
    fileContent = null;
    if (isBytes(tensor)) area.value = elements.map((text) => JSON.parse(text)).join("\n");
    else show(elements);
  };
  const showExample = ({ shape, data }) => {
    setSizes(shape);
    if (isBytes(tensor)) area.value = data.map((text) => JSON.parse(text)).join("\n");
    else show(data);
  };
  return { parts: [area, tools], randomise, show: showExample, value };
}

async function base64Of(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
}

// Turns a picture into a tensor of rows, columns and channels, scaled to the declared shape.
async function pixelsOf(file, tensor) {
  const bitmap = await createImageBitmap(file);
  const channels = [1, 3, 4].includes(tensor.shape.at(-1)) ? tensor.shape.at(-1) : 3;
  const rank = tensor.shape.length;
  const size = (axis, natural) => (tensor.shape[axis] > 0 ? tensor.shape[axis] : natural);
  const height = size(rank - 3, bitmap.height);
  const width = size(rank - 2, bitmap.width);
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, width, height);
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = [];
  for (let i = 0; i < rgba.length; i += 4) {
    if (channels === 1) data.push(String(Math.round((rgba[i] + rgba[i + 1] + rgba[i + 2]) / 3)));
    else for (let c = 0; c < channels; c++) data.push(String(rgba[i + c]));
  }
  return { shape: [...Array(Math.max(rank - 3, 0)).fill(1), height, width, channels], data };
}

function requestBody(editors) {
  const inputs = editors.filter((each) => each.isSent).map(({ tensor, value }) => {
    const { shape, data, parameters } = value();
    const rest = parameters ? `, "parameters": ${JSON.stringify(parameters)}` : "";
    return `{"name": ${JSON.stringify(tensor.name)}, "datatype": "${tensor.datatype}", "shape": ${JSON.stringify(shape)}${rest}, "data": [${data.join(", ")}]}`;
  });
  return `{"inputs": [${inputs.join(",\n            ")}]}`;
}
