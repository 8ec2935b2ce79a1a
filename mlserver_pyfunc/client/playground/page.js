// Builds the page, calls the model and measures its latency.

const model = parseAnswer($("model").textContent);
// All addresses are relative to the page's own, so the page works behind any path prefix.
const here = new URL(".", location.href);
const origin = here.href.replace(/\/v2\/models\/.*$/, "");
const editors = makeEditors(model.inputs);
$("inputs").append(...new Set(editors.map(({ box }) => box)));
if (!editors.length) $("inputs").append(make("p", { class: "note" }, "The function takes no inputs."));
if (model.version) { $("version").textContent = `version ${model.version}`; $("version").hidden = false; }

function showContract() {
  const rows = ["inputs", "outputs"].flatMap((kind) => model[kind].map((tensor) => make("tr", {},
    make("td", {}, kind.slice(0, -1) + (tensor.optional ? ", optional" : "")),
    make("th", { scope: "row" }, tensor.name),
    make("td", { class: "value" }, tensor.datatype),
    make("td", { class: "value" }, tensor.shape_text),
    make("td", {}, tensor.description ?? ""))));
  const heads = ["", "tensor", "datatype", "shape", "description"].map((text) => text ? make("th", { scope: "col" }, text) : make("td"));
  $("contract").className = "plain";
  $("contract").append(make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
  $("details").append(...Object.entries(model.details).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
}

async function showReadiness() {
  let ready = false;
  try { ready = (await fetch("ready")).ok; } catch { /* shown as not ready */ }
  $("ready").textContent = ready ? "ready" : "not ready";
  $("ready").className = `badge ${ready ? "good" : "bad"}`;
}

async function failure(response) {
  const text = await response.text();
  try {
    const body = JSON.parse(text);
    return `${body.error ?? JSON.stringify(body.detail ?? body)} (status ${response.status})`;
  } catch {
    return `${text || response.statusText} (status ${response.status})`;
  }
}

let stopped = null; // Aborts the call that runs.
const post = (path, body) => fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body, signal: stopped?.signal });

async function call(body) {
  const started = performance.now();
  const response = await post("infer", body);
  if (!response.ok) throw new Error(await failure(response));
  const text = await response.text();
  return { text, took: performance.now() - started };
}

async function callStream(body) {
  const started = performance.now();
  const response = await post("infer_stream", body);
  if (!response.ok) throw new Error(await failure(response));
  const view = streamView($("answer"));
  let first = null;
  try {
    for await (const data of eventsOf(response)) {
      const answer = parseAnswer(data);
      if (answer.error) throw new Error(answer.error);
      first ??= performance.now() - started;
      view.show(answer);
    }
  } finally {
    view.end();
  }
  return { first, took: performance.now() - started };
}

// The data of the server-sent events of a response.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) yield data;
    }
  }
}

const milliseconds = (value) => `${value.toFixed(value < 10 ? 2 : 1)} ms`;

function currentBody() {
  const body = requestBody(editors);
  showSnippets($("snippets"), model, body, origin);
  try { sessionStorage.setItem(location.pathname, body); } catch { /* Too long to be kept. */ }
  return body;
}

async function callOnce() {
  if (stopped) { stopped.abort(); return; }
  const body = currentBody();
  stopped = new AbortController();
  showError("");
  markFaults("");
  $("timing").textContent = "";
  $("call").textContent = "Stop";
  const started = performance.now();
  const entry = { body, at: new Date().toLocaleTimeString(), status: "ok" };
  try {
    if (model.streams) {
      const { first, took } = await callStream(body);
      entry.text = $("answer").innerText;
      $("timing").textContent = `${milliseconds(took)} in all${first == null ? "" : `, first item after ${milliseconds(first)}`}`;
    } else {
      const { text, took } = await call(body);
      const answer = parseAnswer(text);
      entry.text = toJson({ ...answer, id: undefined });
      showAnswer(answer, text);
      $("timing").textContent = `${milliseconds(took)}, ${new Blob([text]).size.toLocaleString()} bytes`;
    }
  } catch (error) {
    const wasStopped = error.name === "AbortError";
    entry.status = wasStopped ? "stopped" : "error";
    entry.text = wasStopped ? $("answer").innerText : error.message;
    if (wasStopped) $("timing").textContent = `stopped after ${milliseconds(performance.now() - started)}`;
    else { showError(error.message); markFaults(error.message); }
    if (!model.streams) $("answer").replaceChildren();
  } finally {
    stopped = null;
    $("call").textContent = "Call";
    remember({ ...entry, took: performance.now() - started });
    showReadiness();
  }
}

// Marks the input that an error is about: input "x" of model "m": ... at index 3
function markFaults(message) {
  const found = message.match(/^input "(.*?)" of model/);
  const index = message.match(/at index (\d+)/);
  editors.forEach((each) => each.mark(found?.[1] === each.tensor.name ? message : "", index ? Number(index[1]) : null));
}

// The last calls. A click shows the request and the answer of one, two that are chosen are compared.
const past = [];

function remember(entry) {
  past.unshift(entry);
  past.length = Math.min(past.length, 20);
  $("history").hidden = false;
  $("calls").replaceChildren(...past.map((each, index) => {
    const choose = make("input", { type: "checkbox", "aria-label": `compare call ${past.length - index}` });
    choose.checked = Boolean(each.chosen);
    choose.addEventListener("change", () => {
      each.chosen = choose.checked;
      // A third call takes the place of the oldest one that was chosen.
      past.filter((other) => other.chosen && other !== each).slice(1).forEach((other) => { other.chosen = false; });
      [...$("calls").querySelectorAll("input")].forEach((box, i) => { box.checked = Boolean(past[i].chosen); });
      compare();
    });
    const again = make("button", { type: "button", class: "small", onclick: () => { showRequest(editors, each.body); currentBody(); } }, "Use its values");
    return make("li", {}, choose, make("span", {}, `${each.at}, ${each.status}, ${milliseconds(each.took)}`), again);
  }));
  compare();
}

function compare() {
  const chosen = past.filter((each) => each.chosen).slice(0, 2);
  if (chosen.length < 2) { $("compared").replaceChildren(); return; }
  const lines = chosen.map((each) => `${each.body}\n\n${each.text}`.slice(0, 40000).split("\n"));
  $("compared").replaceChildren(...chosen.map((each, i) => make("div", {},
    make("p", { class: "note" }, `${each.at}, ${each.status}, ${milliseconds(each.took)}`),
    make("pre", { tabindex: "0", class: "wrap" }, ...marked(lines[i], new Set(lines[1 - i]))))));
}

// Marks the lines that the other call lacks.
const marked = (lines, others) => lines.map((line) => (others.has(line) ? `${line}\n` : make("mark", {}, `${line}\n`)));

// A request in the address: what follows # never reaches a server.
const MOST_SHARED = 6000;
const encoded = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text))).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
const decoded = (text) => new TextDecoder().decode(Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0)));

function share() {
  const body = requestBody(editors);
  if (body.length > MOST_SHARED) { showError(`the request has ${body.length} characters, a link holds up to ${MOST_SHARED}`); return; }
  history.replaceState(null, "", `#request=${encoded(body)}`);
  copyText(location.href, $("share"), "Copy a link");
}

// Values come from the link, or from before the page was loaded again.
function restore() {
  const link = location.hash.match(/^#request=(.*)/)?.[1];
  try {
    const body = link ? decoded(link) : sessionStorage.getItem(location.pathname);
    if (body) showRequest(editors, body);
  } catch (error) {
    showError(`the link holds no request: ${error.message}`);
  }
}

let measuring = false;

async function measure() {
  if (measuring) { measuring = false; return; }
  measuring = true;
  $("repeat").textContent = "Stop";
  const body = currentBody();
  const wanted = Math.min(Math.max(Math.floor(Number($("times").value)) || 1, 1), 10000);
  const took = [];
  let errors = 0;
  let drawn = 0;
  showError("");
  $("latency").hidden = false;
  const show = () => {
    const sorted = [...took].sort((a, b) => a - b);
    const rank = (share) => sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)];
    $("latency-summary").textContent = took.length
      ? `${took.length} calls, median ${milliseconds(rank(0.5))}, p95 ${milliseconds(rank(0.95))}${errors ? `, ${errors} errors` : ""}`
      : `${errors} errors`;
    $("latency-chart").replaceChildren(chart("Latency in milliseconds by call", [{ name: "latency", values: took }], "line", " ms"));
  };
  while (measuring && took.length + errors < wanted) {
    try {
      took.push(await (model.streams ? timedStream(body) : call(body).then((answer) => answer.took)));
    } catch (error) {
      errors += 1;
      showError(error.message);
    }
    if (performance.now() - drawn > 100) { show(); drawn = performance.now(); }
  }
  show();
  measuring = false;
  $("repeat").textContent = "Measure";
}

async function timedStream(body) {
  const started = performance.now();
  const response = await post("infer_stream", body);
  if (!response.ok) throw new Error(await failure(response));
  await response.text();
  return performance.now() - started;
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); callOnce(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  if (!stopped) callOnce();
});
$("randomise").addEventListener("click", () => { editors.forEach((each) => each.randomise()); currentBody(); });
$("share").addEventListener("click", share);
$("repeat").addEventListener("click", measure);
$("form").addEventListener("change", currentBody);
document.addEventListener("edited", currentBody);
showContract();
restore();
currentBody();
showReadiness();
