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

// The least and the greatest value to offer: the declared ones, else usual ones.
function bounds(tensor) {
  const step = isFloat(tensor) ? 0 : 1;
  const [usualLow, usualHigh] = isFloat(tensor) ? [0, 10] : LIMITS[tensor.datatype] ?? [0, 1];
  const declared = (inclusive, exclusive, inwards) => (tensor[inclusive] != null ? Number(tensor[inclusive]) : tensor[exclusive] != null ? Number(tensor[exclusive]) + inwards : null);
  const low = declared("minimum", "exclusive_minimum", step);
  const high = declared("maximum", "exclusive_maximum", -step);
  const span = usualHigh - usualLow;
  return [low ?? (high == null ? usualLow : Math.min(usualLow, high - span)), high ?? (low == null ? usualHigh : Math.max(usualHigh, low + span))];
}

const isBounded = (tensor) => tensor.datatype === "UINT8" ||
  ((tensor.minimum ?? tensor.exclusive_minimum) != null && (tensor.maximum ?? tensor.exclusive_maximum) != null);

// The axis of the labels: the last one of their number.
const labelsAxis = (tensor) => (tensor.labels ? tensor.shape.lastIndexOf(tensor.labels.length) : -1);

// An element is JSON text, and what a field shows is plain text.
const plainText = (json) => (json.startsWith('"') ? JSON.parse(json) : json === "null" ? "" : json);
const textOr = (value) => (value == null ? null : String(value));
const blank = (tensor) => (tensor.enum ? String(tensor.enum[0]) : isBytes(tensor) ? "" : tensor.datatype === "BOOL" ? "false" : "0");

function randomElement(tensor) {
  if (tensor.enum) return element(tensor, String(tensor.enum[Math.floor(Math.random() * tensor.enum.length)]));
  if (isBytes(tensor)) return JSON.stringify(WORDS[Math.floor(Math.random() * WORDS.length)]);
  if (tensor.datatype === "BOOL") return String(Math.random() < 0.5);
  const [low, high] = bounds(tensor);
  if (isFloat(tensor)) return String(Number((low + Math.random() * (high - low)).toPrecision(3)));
  return String(Math.floor(low + Math.random() * (high - low + 1)));
}

// Sends text that is no JSON value as a string, so that the server says what is wrong with it.
// An empty field of a tensor that may have null is null.
function element(tensor, text) {
  const trimmed = text.trim();
  if (text === "" && tensor.nullable) return "null";
  if (isBytes(tensor)) return JSON.stringify(text);
  if (trimmed === "" && tensor.nullable) return "null";
  if (tensor.datatype === "BOOL" && /^(true|false|[01]|yes|no)$/i.test(trimmed)) return String(/^(true|1|yes)$/i.test(trimmed));
  return /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$|^(true|false|null)$/.test(trimmed) ? trimmed : JSON.stringify(trimmed);
}

// The field of one element: a choice of the allowed values, a switch, or a line of text.
function elementField(tensor, label) {
  const choices = tensor.enum ?? (tensor.datatype === "BOOL" && tensor.nullable ? [true, false] : null);
  if (choices) return make("select", { "aria-label": label }, ...[...choices, ...(tensor.nullable ? [""] : [])].map((value) => make("option", {}, String(value))));
  if (tensor.datatype === "BOOL") return make("input", { type: "checkbox", role: "switch", class: "switch", "aria-label": label });
  return make("input", { type: "text", inputmode: isBytes(tensor) ? "text" : "decimal", "aria-label": label, value: blank(tensor) });
}

function writeField(field, text) {
  if (field.type === "checkbox") { field.checked = /^(true|1|yes)$/i.test(text); return; }
  // What is not allowed becomes a choice, too: the server says what is wrong with it.
  if (field.tagName === "SELECT" && ![...field.options].some((option) => option.value === text)) field.append(make("option", {}, text));
  field.value = text;
}

const fieldElement = (tensor, field) => element(tensor, field.type === "checkbox" ? String(field.checked) : field.value);

// Makes an editor for each input. Inputs that share rows are the columns of one table.
function makeEditors(inputs) {
  const grouped = rowGroups(inputs);
  const inTable = new Set(grouped.flat());
  const editors = new Map(inputs.filter((tensor) => !inTable.has(tensor)).map((tensor) => [tensor, editor(tensor)]));
  for (const group of grouped) {
    const sends = new Map(group.filter((tensor) => tensor.optional).map((tensor) => [tensor, make("input", { type: "checkbox", id: newId() })]));
    const shared = gridEditor(group, sends);
    const choices = [...sends].map(([tensor, send]) => make("label", {}, send, ` send ${tensor.name}`));
    const box = make("fieldset", {}, make("legend", {}, "Rows ", make("span", { class: "type" }, group.map((t) => t.name).join(", "))), make("div", {}), ...notes(group, gridEditor), ...shared.parts);
    if (choices.length) box.append(make("p", { class: "tools" }, ...choices));
    takeDrops(box, shared.read);
    group.forEach((tensor) => editors.set(tensor, asEditor(tensor, box, shared.of(tensor), sends.get(tensor))));
  }
  return inputs.map((tensor) => editors.get(tensor));
}

const axisNames = (tensor) => tensor.shape_text.slice(1, -1).split(",").map((size) => size.trim());
const isNarrow = (tensor) => tensor.shape.at(-1) > 0 && tensor.shape.at(-1) <= (tensor.labels ? 64 : 12);
const isColumns = (tensor) => tensor.shape[0] === -1 &&
  (tensor.shape.length === 1 || (tensor.shape.length === 2 && isNarrow(tensor) && !isBytes(tensor)));

function rowGroups(inputs) {
  const candidates = inputs.filter(isColumns);
  const isNamed = (tensor) => axisNames(tensor)[0] !== "-1";
  const names = [...new Set(candidates.filter(isNamed).map((tensor) => axisNames(tensor)[0]))];
  const groups = names.map((name) => candidates.filter((tensor) => axisNames(tensor)[0] === name));
  // Without names, inputs are columns if all of them have one axis.
  if (!names.length && inputs.every((tensor) => isColumns(tensor) && tensor.shape.length === 1)) groups.push(inputs);
  return groups.filter((group) => group.length > 1);
}

function notes(tensors, editor) {
  return tensors.map((tensor) => [tensor, [tensor.description?.replace(/\.\s*$/, ""), allowed(tensor, editor)].filter(Boolean).join("; ")])
    .filter(([, text]) => text)
    .map(([tensor, text]) => make("p", { class: "note" }, tensors.length > 1 ? `${tensor.name}: ${text}` : text));
}

// Says what the fields do not show: limits, what stands for an input that is not sent, and labels.
function allowed(tensor, editor) {
  const limits = [["minimum", "at least"], ["exclusive_minimum", "above"], ["maximum", "at most"], ["exclusive_maximum", "below"]]
    .filter(([key]) => tensor[key] != null && editor !== scalarEditor).map(([key, words]) => `${words} ${tensor[key]}`);
  const isShown = editor !== textEditor;
  return [
    limits.join(", "),
    tensor.enum && !isShown ? `one of ${tensor.enum.join(", ")}` : "",
    tensor.default != null ? `default ${toJson(tensor.default)}` : "",
    tensor.labels && !isShown ? `axis ${labelsAxis(tensor)}: ${tensor.labels.join(", ")}` : "",
  ].filter(Boolean).join("; ");
}

function editor(tensor) {
  const rank = tensor.shape.length;
  const isGrid = !isBytes(tensor) && rank >= 1 && rank <= 2 && isNarrow(tensor) &&
    (rank === 1 || tensor.shape[0] === -1 || tensor.shape[0] <= 12);
  const isScalar = tensor.shape.every((size) => size === 1);
  const chosen = isScalar && (tensor.enum || tensor.datatype === "BOOL" || (isBounded(tensor) && !isBytes(tensor))) ? scalarEditor
    : isGrid ? gridEditor : textEditor;
  const inner = chosen(chosen === gridEditor ? [tensor] : tensor);
  const send = tensor.optional && make("input", { type: "checkbox", id: newId() });
  const legend = make("legend", {}, tensor.name, " ", make("span", { class: "type" }, `${tensor.datatype} ${tensor.shape_text}`));
  const box = make("fieldset", {}, legend, make("div", {}), ...notes([tensor], chosen));
  if (send) box.append(make("p", { class: "tools" }, make("label", {}, send, " send this optional input")));
  box.append(...inner.parts);
  if (inner.read) takeDrops(box, inner.read);
  // Whoever fills in an optional input wants to send it.
  if (send) ["input", "edited"].forEach((kind) => box.addEventListener(kind, (event) => { if (event.target !== send) send.checked = true; }));
  return asEditor(tensor, box, inner.of ? inner.of(tensor) : inner, send);
}

function asEditor(tensor, box, inner, send) {
  inner.randomise();
  if (tensor.example) inner.show(tensor.example);
  const fault = make("p", { class: "fault", id: newId(), hidden: true });
  box.append(fault);
  return {
    tensor, box,
    randomise: inner.randomise,
    get isSent() { return !send || send.checked; },
    set isSent(value) { if (send) send.checked = value; },
    value: inner.value,
    show: inner.show,
    // Marks the field, and the element at an index, with the server's words; no words unmark it.
    mark(words, index) {
      fault.textContent = words;
      fault.hidden = !words;
      const fields = inner.fields?.() ?? [];
      const wrong = index == null ? fields : fields.slice(index, index + 1);
      fields.forEach((field) => { field.removeAttribute("aria-invalid"); field.removeAttribute("aria-describedby"); });
      if (words) wrong.forEach((field) => { field.setAttribute("aria-invalid", "true"); field.setAttribute("aria-describedby", fault.id); });
    },
  };
}

// Calls read with a file that is dropped on an element, and says why one cannot be read.
function takeDrops(box, read) {
  const over = (is) => box.classList.toggle("over", is);
  box.addEventListener("dragover", (event) => { event.preventDefault(); over(true); });
  box.addEventListener("dragleave", () => over(false));
  box.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    if (event.dataTransfer.files[0]) readFile(event.dataTransfer.files[0], read, box);
  });
}

// Reads a file into the field around a place.
async function readFile(file, read, place) {
  try {
    await read(file);
    place.dispatchEvent(new Event("edited", { bubbles: true }));
  } catch (error) {
    showError(`"${file.name}" cannot be read: ${error.message}`);
  }
}

// One value: a choice, a switch, or a slider beside its number.
function scalarEditor(tensor) {
  const field = elementField(tensor, `${tensor.name}, row 0, column 0`);
  const [low, high] = bounds(tensor);
  const hasSlider = field.type === "text";
  const slider = make("input", { type: "range", min: low, max: high, step: isFloat(tensor) ? "any" : "1", "aria-label": `${tensor.name}, slider` });
  slider.addEventListener("input", () => { field.value = isFloat(tensor) ? short(Number(slider.value)) : slider.value; });
  field.addEventListener("input", () => { slider.value = field.value; });
  const set = (text) => { writeField(field, text); slider.value = text; };
  const ends = hasSlider ? [make("span", { class: "muted" }, short(low)), slider, make("span", { class: "muted" }, short(high))] : [];
  return {
    parts: [make("div", { class: "tools" }, ...ends, field)],
    randomise: () => set(plainText(randomElement(tensor))),
    show: ({ data }) => set(plainText(data[0])),
    value: () => ({ shape: tensor.shape.map(() => 1), data: [fieldElement(tensor, field)] }),
    fields: () => [field],
  };
}

function fileButton(tensor, read, accept) {
  const input = make("input", { type: "file", "aria-label": `${tensor.name} from a file` });
  if (accept) input.accept = accept;
  input.addEventListener("change", () => { if (input.files[0]) readFile(input.files[0], read, input); });
  return input;
}

// The values of a table for one tensor: of a vector, the column of its name or the only one.
function valuesFor(tensor, { header, values }) {
  if (!header || header.length === 1 || (tensor.shape.length > 1 && !isBytes(tensor))) return values;
  const column = header.findIndex((title) => title.trim().toLowerCase() === tensor.name.toLowerCase());
  if (column < 0) throw new Error(`expected one column or one named ${tensor.name}, got ${header.slice(0, 30).join(", ")}`);
  return values.map((row) => [row[column]]);
}

function textEditor(tensor) {
  const open = tensor.shape.map((size, axis) => [size, axis]).filter(([size]) => size === -1);
  const sizes = new Map(open.map(([, axis]) => [axis, make("input", { type: "number", min: "0", value: "1", "aria-label": `${tensor.name}, size of axis ${axis}` })]));
  const hint = isBytes(tensor) ? "One element a line." : "Numbers in row-major order, by commas or spaces.";
  const area = make("textarea", { "aria-label": tensor.name, spellcheck: "false", placeholder: hint });
  let fileContent = null; // {data, parameters} of the file that was read; typing replaces it
  area.addEventListener("input", () => { fileContent = null; preview.replaceChildren(); });
  const shape = () => tensor.shape.map((size, axis) => (size === -1 ? Number(sizes.get(axis).value) : size));
  const setSizes = (values) => values.forEach((value, axis) => { if (sizes.has(axis)) sizes.get(axis).value = value; });
  const show = (elements) => {
    const isLong = elements.length > 4000;
    // An element of several lines cannot be told from several elements: it is kept beside the field.
    const isKept = isLong || (isBytes(tensor) && open.length > 0 && elements.some((json) => json.includes("\\n")));
    area.value = elements.slice(0, 4000).map(plainText).join(isBytes(tensor) ? "\n" : ", ") + (isLong ? `, ... ${elements.length} in all` : "");
    fileContent = isKept ? { data: elements } : null;
  };
  const preview = make("div", { class: "preview" });
  const describe = (file) => `${tensor.name}: ${file.name}`;
  async function fromFile(file) {
    preview.replaceChildren();
    if (tensor.content_type === "str") { await fromText(file); return; }
    if (isBytes(tensor)) {
      const src = URL.createObjectURL(file);
      if (file.type.startsWith("image/")) preview.append(make("img", { class: "picture", src, alt: describe(file) }));
      if (file.type.startsWith("audio/")) preview.append(make("audio", { src, controls: true, "aria-label": describe(file) }));
      fileContent = { data: [JSON.stringify(await base64Of(file))], parameters: { content_type: "base64" } };
      area.value = `${file.name}, ${file.size} bytes`;
      setSizes(tensor.shape.map(() => 1));
      return;
    }
    if (file.type.startsWith("image/")) {
      const picture = await pixelsOf(file, tensor);
      setSizes(picture.shape);
      show(picture.data);
      preview.append(pictureOf({ ...tensor, ...picture }) ?? "");
      return;
    }
    const values = valuesFor(tensor, await tableIn(file, [tensor.name]));
    const elements = values.flat().map((text) => element(tensor, text ?? "null"));
    if (sizes.has(0)) sizes.get(0).value = tensor.shape.length === 1 ? elements.length : values.length;
    show(elements);
  }
  // The text of a file, or of the column of its name in a Parquet file.
  async function fromText(file) {
    if (isParquet(file)) {
      const values = valuesFor(tensor, await tableIn(file, []));
      show(values.map(([text]) => JSON.stringify(text ?? "")));
      if (sizes.has(0)) sizes.get(0).value = values.length;
      return;
    }
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    fileContent = null;
    area.value = open.length ? text.replace(/\r?\n$/, "") : text;
  }
  const tools = make("div", { class: "tools" });
  if (sizes.size) tools.append("Sizes of open axes", ...sizes.values());
  const accept = isBytes(tensor) ? "" : `.csv,.json,.txt,.parquet${isPixels(tensor) ? ",image/*" : ""}`;
  tools.append(fileButton(tensor, fromFile, accept), ...captureTools(tensor, fromFile));
  const value = () => {
    if (fileContent) return { shape: shape(), ...fileContent };
    if (isBytes(tensor)) {
      const lines = !open.length && product(shape()) === 1 ? [area.value] : area.value === "" ? [] : area.value.split("\n");
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
    preview.replaceChildren();
    show(elements);
  };
  const showExample = ({ shape, data, parameters }) => {
    setSizes(shape);
    preview.replaceChildren();
    if (!parameters) { show(data); return; }
    fileContent = { data, parameters };
    area.value = `${data.length} ${data.length === 1 ? "element" : "elements"} of a file`;
    const file = { ...tensor, shape, parameters, data: data.map(plainText) };
    preview.append(pictureOf(file) ?? soundOf(file) ?? "");
  };
  return { parts: [area, tools, preview], randomise, show: showExample, value, read: fromFile, fields: () => [area] };
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
  // Shares of full brightness if the declared values end at 1.
  const level = (value) => (tensor.maximum === 1 ? (value / 255).toFixed(4) : String(Math.round(value)));
  for (let i = 0; i < rgba.length; i += 4) {
    if (channels === 1) data.push(level((rgba[i] + rgba[i + 1] + rgba[i + 2]) / 3));
    else for (let c = 0; c < channels; c++) data.push(level(rgba[i + c]));
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

// Fills the form from a request's text; inputs that it lacks are not sent.
function showRequest(editors, body) {
  const given = new Map(JSON.parse(body, (key, value, context) =>
    typeof value === "number" && context?.source && !Number.isSafeInteger(value) ? { source: context.source } : value).inputs.map((tensor) => [tensor.name, tensor]));
  const source = (value) => (value && typeof value === "object" ? value.source : JSON.stringify(value));
  for (const each of editors) {
    const tensor = given.get(each.tensor.name);
    each.isSent = Boolean(tensor);
    if (tensor) each.show({ shape: tensor.shape, data: tensor.data.map(source), parameters: tensor.parameters });
  }
}
