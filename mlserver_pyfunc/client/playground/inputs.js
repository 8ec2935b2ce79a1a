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

// Makes an editor for each input. Inputs that share rows are the columns of one table.
function makeEditors(inputs) {
  const grouped = rowGroups(inputs);
  const inTable = new Set(grouped.flat());
  const editors = new Map(inputs.filter((tensor) => !inTable.has(tensor)).map((tensor) => [tensor, editor(tensor)]));
  for (const group of grouped) {
    const shared = gridEditor(group);
    const box = make("fieldset", {}, make("legend", {}, "Rows ", make("span", { class: "type" }, group.map((t) => t.name).join(", "))), make("div", {}), ...notes(group), ...shared.parts);
    takeDrops(box, shared.read);
    group.forEach((tensor) => editors.set(tensor, asEditor(tensor, box, shared.of(tensor))));
  }
  return inputs.map((tensor) => editors.get(tensor));
}

const axisNames = (tensor) => tensor.shape_text.slice(1, -1).split(",").map((size) => size.trim());
const isColumns = (tensor) => !tensor.optional && tensor.shape[0] === -1 &&
  (tensor.shape.length === 1 || (tensor.shape.length === 2 && tensor.shape[1] > 0 && tensor.shape[1] <= 12 && !isBytes(tensor)));

function rowGroups(inputs) {
  const candidates = inputs.filter(isColumns);
  const isNamed = (tensor) => axisNames(tensor)[0] !== "-1";
  const names = [...new Set(candidates.filter(isNamed).map((tensor) => axisNames(tensor)[0]))];
  const groups = names.map((name) => candidates.filter((tensor) => axisNames(tensor)[0] === name));
  // Without names, inputs are columns if all of them have one axis.
  if (!names.length && inputs.every((tensor) => isColumns(tensor) && tensor.shape.length === 1)) groups.push(inputs);
  return groups.filter((group) => group.length > 1);
}

const notes = (tensors) => tensors.filter((tensor) => tensor.description)
  .map((tensor) => make("p", { class: "note" }, tensors.length > 1 ? `${tensor.name}: ${tensor.description}` : tensor.description));

function editor(tensor) {
  const fixedColumns = tensor.shape.at(-1);
  const rank = tensor.shape.length;
  const isGrid = !isBytes(tensor) && rank >= 1 && rank <= 2 && fixedColumns > 0 && fixedColumns <= 12 &&
    (rank === 1 || tensor.shape[0] === -1 || tensor.shape[0] <= 12);
  const isScalar = tensor.shape.every((size) => size === 1);
  const inner = isScalar && ["BOOL", "UINT8"].includes(tensor.datatype) ? scalarEditor(tensor)
    : isGrid ? gridEditor([tensor]) : textEditor(tensor);
  const send = tensor.optional && make("input", { type: "checkbox", id: newId() });
  const legend = make("legend", {}, tensor.name, " ", make("span", { class: "type" }, `${tensor.datatype} ${tensor.shape_text}`));
  const box = make("fieldset", {}, legend, make("div", {}), ...notes([tensor]));
  if (send) box.append(make("p", { class: "tools" }, make("label", {}, send, " send this optional input")));
  box.append(...inner.parts);
  if (inner.read) takeDrops(box, inner.read);
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
    if (event.dataTransfer.files[0]) readFile(event.dataTransfer.files[0], read);
  });
}

async function readFile(file, read) {
  try {
    await read(file);
    document.dispatchEvent(new Event("edited"));
  } catch (error) {
    showError(`"${file.name}" cannot be read: ${error.message}`);
  }
}

// One value: a switch for BOOL, a slider with a number for UINT8.
function scalarEditor(tensor) {
  const label = `${tensor.name}, row 0, column 0`;
  const isSwitch = tensor.datatype === "BOOL";
  const field = isSwitch
    ? make("input", { type: "checkbox", role: "switch", class: "switch", "aria-label": label })
    : make("input", { type: "number", min: "0", max: "255", "aria-label": label });
  const slider = make("input", { type: "range", min: "0", max: "255", "aria-label": `${tensor.name}, slider` });
  slider.addEventListener("input", () => { field.value = slider.value; });
  field.addEventListener("input", () => { slider.value = field.value; });
  const set = (text) => {
    if (isSwitch) field.checked = text === "true";
    else field.value = slider.value = text;
  };
  return {
    parts: [make("div", { class: "tools" }, ...(isSwitch ? [field] : [slider, field]))],
    randomise: () => set(randomElement(tensor)),
    show: ({ data }) => set(data[0]),
    value: () => ({ shape: tensor.shape, data: [isSwitch ? String(field.checked) : element(tensor, field.value)] }),
    fields: () => [field],
  };
}

// A table whose columns are the elements along the last axis of inputs that share their rows.
function gridEditor(tensors) {
  const [first] = tensors;
  const isVector = first.shape.length === 1 && first.shape[0] !== -1;
  const isOpen = first.shape[0] === -1;
  const width = (tensor) => (tensor.shape.length === 1 && !isVector ? 1 : tensor.shape.at(-1));
  const columns = tensors.flatMap((tensor) => Array.from({ length: width(tensor) }, (_, index) => {
    const label = tensor.labels?.length === width(tensor) ? tensor.labels[index] : null;
    return { tensor, index, name: label ?? (tensors.length === 1 ? String(index) : width(tensor) === 1 ? tensor.name : `${tensor.name} ${index}`) };
  }));
  const head = make("tr", {}, ...columns.map(({ name }) => make("th", { scope: "col" }, name)));
  const body = make("tbody");
  const cells = () => [...body.rows].map((row) => [...row.querySelectorAll("input")]);
  const write = (cell, text) => { if (cell.type === "checkbox") cell.checked = /^(true|1|yes)$/i.test(text); else cell.value = text; };
  const read = (cell) => (cell.type === "checkbox" ? String(cell.checked) : cell.value);
  function addRow() {
    const row = body.rows.length;
    body.append(make("tr", {}, ...columns.map(({ tensor, index }) => {
      const isSwitch = tensor.datatype === "BOOL" && tensors.length > 1;
      const input = make("input", {
        type: isSwitch ? "checkbox" : "text", inputmode: isBytes(tensor) ? "text" : "decimal",
        "aria-label": `${tensor.name}, row ${row}, column ${index}`, value: isSwitch ? null : isBytes(tensor) ? "" : "0",
      });
      return make("td", { class: columns.length < 3 ? "wide" : null }, input);
    })));
  }
  const rows = (n) => { while (body.rows.length < n) addRow(); while (body.rows.length > n) body.lastChild.remove(); };
  rows(isVector || isOpen ? 1 : first.shape[0]);
  // Puts rows of text into the cells from a place on.
  function fill(values, top = 0, left = 0) {
    if (isOpen) rows(Math.max(top + values.length, top ? body.rows.length : 0));
    const all = cells();
    values.forEach((row, r) => row.forEach((text, c) => { if (text != null && all[top + r]?.[left + c]) write(all[top + r][left + c], text); }));
  }
  async function readTable(file) {
    const { header, values } = parseTable(await file.text(), columns.map(({ name }) => name));
    if (!header) { fill(values); return; }
    const place = columns.map(({ name, tensor }) => {
      const at = header.findIndex((title) => title.toLowerCase() === name.toLowerCase());
      return at < 0 && width(tensor) === 1 ? header.findIndex((title) => title.toLowerCase() === tensor.name.toLowerCase()) : at;
    });
    fill(values.map((row) => place.map((at, c) => (at < 0 ? (header.length === columns.length ? row[c] : null) : row[at]))));
  }
  body.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text");
    if (!/[\t\n]/.test(text.trim())) return;
    event.preventDefault();
    const [top, left] = placeOf(event.target);
    fill(text.trimEnd().split(/\r?\n/).map((line) => line.split("\t")), top, left);
  });
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.target.type === "checkbox") return;
    event.preventDefault();
    const [row, column] = placeOf(event.target);
    if (step > 0 && isOpen && row === body.rows.length - 1) addRow();
    cells()[row + step]?.[column]?.focus();
  });
  const placeOf = (input) => {
    const all = cells();
    const row = all.findIndex((each) => each.includes(input));
    return [row, all[row].indexOf(input)];
  };
  const scroll = make("div", { class: "scroll" }, make("table", { class: "grid" }, make("thead", {}, head), body));
  const tools = make("div", { class: "tools" });
  if (isOpen) {
    tools.append(
      make("button", { type: "button", class: "small", onclick: addRow }, "Add row"),
      make("button", { type: "button", class: "small", onclick: () => rows(Math.max(body.rows.length - 1, 0)) }, "Remove row"),
      fileButton(first, readTable, ".csv,.tsv,.json,.txt"));
  }
  const own = (tensor) => cells().map((row) => row.filter((_, c) => columns[c].tensor === tensor));
  const of = (tensor) => ({
    randomise: () => own(tensor).flat().forEach((cell) => write(cell, isBytes(tensor) ? JSON.parse(randomElement(tensor)) : randomElement(tensor))),
    show: ({ shape, data }) => {
      if (isOpen) rows(shape[0]);
      own(tensor).flat().forEach((cell, index) => { if (index < data.length) write(cell, isBytes(tensor) ? JSON.parse(data[index]) : data[index]); });
    },
    value: () => {
      const mine = own(tensor);
      const shape = isVector ? [width(tensor)] : tensor.shape.length === 1 ? [mine.length] : [mine.length, width(tensor)];
      return { shape, data: mine.flat().map((cell) => (cell.type === "checkbox" ? read(cell) : element(tensor, cell.value))) };
    },
    fields: () => own(tensor).flat(),
  });
  return { parts: [scroll, tools], read: isOpen ? readTable : null, of };
}

// Reads CSV with quotes, tab-separated values, JSON rows or JSON records.
function parseTable(text, names) {
  try {
    const value = JSON.parse(text);
    const list = Array.isArray(value) ? value : [value];
    if (list[0] && typeof list[0] === "object" && !Array.isArray(list[0])) {
      const header = Object.keys(list[0]);
      return { header, values: list.map((each) => header.map((key) => String(each[key]))) };
    }
    return { header: null, values: (Array.isArray(list[0]) ? list : [list]).map((row) => row.map(String)) };
  } catch { /* It is not JSON. */ }
  const line = text.slice(0, text.indexOf("\n") + 1 || undefined);
  const separator = line.includes("\t") ? "\t" : line.includes(";") && !line.includes(",") ? ";" : ",";
  const values = [[]];
  for (const [, quoted, plain, end] of text.matchAll(new RegExp(`(?:"((?:[^"]|"")*)"|([^${separator}\\r\\n]*))(${separator}|\\r?\\n|$)`, "g"))) {
    values.at(-1).push(quoted != null ? quoted.replaceAll('""', '"') : plain.trim());
    if (end === "") break;
    if (end !== separator) values.push([]);
  }
  const rows = values.filter((row) => row.some((cell) => cell !== ""));
  const known = names.map((name) => name.toLowerCase());
  const isHeader = rows.length > 1 && rows[0].some((cell) => known.includes(cell.toLowerCase())) || (rows.length > 1 && rows[0].every((cell) => Number.isNaN(Number(cell))) && rows[1].some((cell) => !Number.isNaN(Number(cell))));
  return isHeader ? { header: rows[0], values: rows.slice(1) } : { header: null, values: rows };
}

const parseRows = (text) => parseTable(text, []).values;

function fileButton(tensor, read, accept) {
  const input = make("input", { type: "file", "aria-label": `${tensor.name} from a file` });
  if (accept) input.accept = accept;
  input.addEventListener("change", () => { if (input.files[0]) readFile(input.files[0], read); });
  return input;
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
    const shown = elements.slice(0, 4000).join(", ");
    area.value = elements.length > 4000 ? `${shown}, ... ${elements.length} in all` : shown;
    fileContent = elements.length > 4000 ? { data: elements } : null;
  };
  const preview = make("div", { class: "preview" });
  async function fromFile(file) {
    preview.replaceChildren();
    if (isBytes(tensor)) {
      const src = URL.createObjectURL(file);
      if (file.type.startsWith("image/")) preview.append(make("img", { class: "picture", src, alt: `${tensor.name}: ${file.name}` }));
      if (file.type.startsWith("audio/")) preview.append(make("audio", { src, controls: true, "aria-label": `${tensor.name}: ${file.name}` }));
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
  const showExample = ({ shape, data, parameters }) => {
    setSizes(shape);
    if (parameters) {
      fileContent = { data, parameters };
      area.value = `${data.length} ${data.length === 1 ? "element" : "elements"} of a file`;
      return;
    }
    if (isBytes(tensor)) area.value = data.map((text) => JSON.parse(text)).join("\n");
    else show(data);
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
