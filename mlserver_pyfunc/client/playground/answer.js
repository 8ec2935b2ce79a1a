// Shows the answer: each output as a table, a chart, a picture or text, or the server's error.

const $ = (id) => document.getElementById(id);

function showError(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

// Keeps integers beyond 2^53 exact in browsers whose JSON.parse passes a number's source text:
// https://github.com/tc39/proposal-json-parse-with-source
function parseAnswer(text) {
  return JSON.parse(text, (key, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
      ? BigInt(context.source) : value);
}

// JSON.stringify takes no BigInt. A mark that no answer can know tells their texts from others.
const BIG = `@${Math.random()}@`;
const toJson = (value) =>
  JSON.stringify(value, (key, v) => (typeof v === "bigint" ? BIG + v : v), 2)
    .replace(new RegExp(`"${BIG}(-?\\d+)"`, "g"), "$1")
    .replace(/\[\s+((?:[^[\]{}"]|"(?:[^"\\]|\\.)*")*?)\s+\]/g, (whole, inner) => `[${inner.replace(/,\s+/g, ", ")}]`);

function showAnswer(answer, text) {
  const parts = answer.outputs.map(outputBox);
  const raw = make("details", {}, make("summary", {}, "The whole response"), make("pre", { tabindex: "0" }, text.length < 200000 ? toJson(answer) : `${text.slice(0, 200000)} ...`));
  $("answer").replaceChildren(...parts, raw);
}

function outputBox(output) {
  const views = [];
  const picture = pictureOf(output);
  if (picture) views.push(["Picture", () => picture]);
  const sound = soundOf(output);
  if (sound) views.push(["Sound", () => sound]);
  if (isOneText(output) && output.data[0]) views.push(["Text", () => textView(output.data[0])]);
  views.push(["Table", () => tableOf(output)]);
  const plot = plotOf(output);
  if (plot) views.push(plot);
  views.push(["JSON", () => make("pre", { tabindex: "0" }, output.data.length <= 20000 ? toJson(output) : `${output.data.length} elements: see the response of the call by curl`)]);
  const title = make("h3", {}, output.name, " ", make("span", { class: "type" }, `${output.datatype} [${output.shape.join(", ")}]`));
  return make("div", { class: "output" }, title, tabs(`Views of ${output.name}`, views));
}

const isOneText = (output) => output.datatype === "BYTES" && output.parameters?.content_type !== "base64" && output.data.length === 1 && typeof output.data[0] === "string";

// Text as it flows, and as Markdown if it looks like that.
const textView = (text) => (looksLikeMarkdown(text) ? markdown(text) : make("div", { class: "stream" }, text));

// The declared labels of an output along an axis, if it has them.
function labelsAlong(output, axis) {
  const declared = model.outputs.find(({ name }) => name === output.name);
  const isThere = declared?.labels?.length === output.shape[axis] && labelsAxis(declared) === axis;
  return isThere ? declared.labels : null;
}

function rowsOf(output) {
  const columns = output.shape.length > 1 ? output.shape.at(-1) : 1;
  const rows = [];
  for (let i = 0; i < output.data.length && columns; i += columns) rows.push(output.data.slice(i, i + columns));
  return rows;
}

const MOST_ROWS = 50;
const MOST_COLUMNS = 24;

function tableOf(output) {
  const rows = rowsOf(output);
  const isText = output.datatype === "BYTES";
  const table = make("table", { class: "plain" });
  const rank = output.shape.length;
  const [rowLabels, columnLabels] = [rank < 3 && labelsAlong(output, 0), rank > 1 && labelsAlong(output, rank - 1)];
  if (rows[0]?.length > 1) {
    const heads = rows[0].slice(0, MOST_COLUMNS).map((_, i) => make("th", { scope: "col" }, columnLabels?.[i] ?? String(i)));
    table.append(make("thead", {}, make("tr", {}, make("td"), ...heads)));
  }
  const body = rows.slice(0, MOST_ROWS).map((row, index) =>
    make("tr", {}, ...(output.data.length > 1 || rowLabels ? [make("th", { scope: "row" }, rowLabels?.[index] ?? String(index))] : []),
      ...row.slice(0, MOST_COLUMNS).map((value) => make("td", { class: isText ? "text" : "value" }, value === null ? "null" : short(value)))));
  table.append(make("tbody", {}, ...body));
  const box = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${output.name} as a table` }, table);
  const hidden = [];
  if (rows.length > MOST_ROWS) hidden.push(`${rows.length - MOST_ROWS} more rows`);
  if (rows[0]?.length > MOST_COLUMNS) hidden.push(`${rows[0].length - MOST_COLUMNS} more columns`);
  if (!rows.length) hidden.push("no elements");
  return make("div", {}, box, ...(hidden.length ? [make("p", { class: "note" }, hidden.join(", "))] : []));
}

function plotOf(output) {
  const rank = output.shape.filter((size) => size !== 1).length;
  if (output.datatype === "BYTES" || output.datatype === "BOOL" || output.data.length < 2 || rank > 2) return null;
  const numbers = (values) => values.map((v) => (v === null ? null : Number(v)));
  const columns = output.shape.length > 1 ? output.shape.at(-1) : output.data.length;
  const rows = columns > 1 ? rowsOf({ ...output, shape: [-1, columns] }) : [output.data];
  const series = rows.slice(0, 6).map((row, i) => ({ name: `row ${i}`, values: numbers(row) }));
  const kind = columns > 40 ? "line" : "bar";
  const note = rows.length > 6 ? [make("p", { class: "note" }, `the first 6 of ${rows.length} rows`)] : [];
  const label = `${output.name}: ${kind} chart of ${series.length} rows of ${columns}`;
  const legend = series.length > 1
    ? [make("p", { class: "legend" }, ...series.map(({ name }, i) => make("span", { class: `k${i + 1}` }, name)))] : [];
  const names = labelsAlong(output, output.shape.length - 1) ?? [];
  return [kind === "bar" ? "Bars" : "Line", () => make("div", {}, chart(label, series, kind, "", names), ...legend, ...note)];
}

// How base64 of pictures and sounds begins.
const KINDS = {
  iVBORw0KGgo: "image/png", "/9j/": "image/jpeg", R0lGOD: "image/gif",
  SUQz: "audio/mpeg", T2dnUw: "audio/ogg", ZkxhQw: "audio/flac",
};

function kindOf(text) {
  // WAV and WebP begin alike: the bytes from 8 on tell them apart.
  if (text.startsWith("UklGR")) return { WAVE: "audio/wav", WEBP: "image/webp" }[atob(text.slice(0, 16)).slice(8, 12)] ?? "";
  return KINDS[Object.keys(KINDS).find((start) => text.startsWith(start))] ?? "";
}

function soundOf(output) {
  if (output.datatype !== "BYTES" || output.parameters?.content_type !== "base64" || output.data.length !== 1) return null;
  const kind = kindOf(output.data[0]);
  return kind.startsWith("audio/") ? make("audio", { controls: true, src: `data:${kind};base64,${output.data[0]}`, "aria-label": `${output.name} as sound` }) : null;
}

function pictureOf(output) {
  if (output.datatype === "BYTES") {
    if (output.parameters?.content_type !== "base64") return null;
    const found = output.data.map((text) => [text, kindOf(text)]).filter(([, kind]) => kind.startsWith("image/"));
    if (!found.length) return null;
    return make("div", {}, ...found.slice(0, 12).map(([text, kind], i) => make("img", { class: "picture", src: `data:${kind};base64,${text}`, alt: `${output.name} ${i}` })));
  }
  const shape = output.shape.length === 4 && output.shape[0] === 1 ? output.shape.slice(1) : output.shape;
  const channels = shape.length === 3 ? shape[2] : 1;
  const isPicture = (shape.length === 3 && [1, 3, 4].includes(channels)) || (shape.length === 2 && output.datatype === "UINT8");
  if (!isPicture || output.datatype === "BYTES" || shape[0] < 4 || shape[1] < 4 || shape[0] * shape[1] > 4e6) return null;
  const [height, width] = shape;
  const canvas = make("canvas", { class: "picture", width, height, role: "img", "aria-label": `${output.name} as a picture` });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  // Floats up to 1 are shares of full brightness, as picture libraries write them.
  const most = output.data.reduce((a, b) => Math.max(a, Number(b)), 0);
  const scale = output.datatype.startsWith("FP") && most <= 1 ? 255 : 1;
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[i * 4 + c] = Number(output.data[i * channels + (channels > 1 ? c : 0)]) * scale;
    image.data[i * 4 + 3] = channels === 4 ? Number(output.data[i * 4 + 3]) * scale : 255;
  }
  context.putImageData(image, 0, 0);
  canvas.style.width = `${Math.max(width, Math.min(width * 8, 256))}px`;
  return canvas;
}

// Shows the items of a stream as they arrive: text as it flows, anything else one below the other.
// Returns functions for each answer and for the end.
function streamView(answerBox) {
  const text = make("div");
  const items = make("div");
  const count = make("p", { class: "note", role: "status" }, "waiting for the first item");
  const pieces = [];
  let number = 0;
  let planned = null;
  let pause = 0;
  // Draws a few times a second, and more seldom if that takes long: items may come faster.
  function drawText() {
    const started = performance.now();
    clearTimeout(planned);
    planned = null;
    // Tokens of a language model bring their own spaces, plain words do not.
    text.replaceChildren(textView(pieces.join(pieces.some((piece) => /^\s|\s$/.test(piece)) ? "" : " ")));
    pause = Math.max(30, 4 * (performance.now() - started));
  }
  answerBox.replaceChildren(count, items);
  const show = (answer) => {
    number += 1;
    count.textContent = `${number} ${number === 1 ? "item" : "items"}`;
    if (answer.outputs.length === 1 && isOneText(answer.outputs[0])) {
      if (!text.isConnected) items.append(text);
      pieces.push(answer.outputs[0].data[0]);
      if (pieces.length === 1) drawText();
      else planned ??= setTimeout(drawText, pause);
    } else if (number <= 50) items.append(...answer.outputs.map(outputBox));
  };
  return { show, end: () => { if (planned) drawText(); } };
}
