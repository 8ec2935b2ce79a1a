// Makes elements, tabs and charts for the other scripts.

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

let serial = 0;
const newId = () => `e${++serial}`;

// Makes tabs of views, which are [title, () => element]. Makes an element when its tab is first shown.
function tabs(label, views) {
  if (views.length === 1) return views[0][1]();
  const panel = make("div", { role: "tabpanel", id: newId(), tabindex: "0" });
  const list = make("div", { role: "tablist", class: "tabs", "aria-label": label });
  const made = new Map();
  const buttons = views.map(([title, view], index) =>
    make("button", {
      type: "button", role: "tab", id: newId(), "aria-controls": panel.id,
      onclick: () => show(index),
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const next = (index + step + views.length) % views.length;
        show(next);
        buttons[next].focus();
      },
    }, title));
  function show(index) {
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", i === index);
      button.tabIndex = i === index ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", buttons[index].id);
    if (!made.has(index)) made.set(index, views[index][1]());
    panel.replaceChildren(made.get(index));
  }
  list.append(...buttons);
  show(0);
  return make("div", {}, list, panel);
}

const SVG = "http://www.w3.org/2000/svg";
function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const short = (value) =>
  typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);

// Draws series, which are {name, values}; a value may be null. kind is "line" or "bar".
function chart(label, series, kind, unit = "", names = []) {
  const [width, height, left, right, top, bottom] = [640, 240, 64, 10, 12, 24];
  const all = series.flatMap((s) => s.values).filter((v) => Number.isFinite(v));
  let low = all.reduce((a, b) => Math.min(a, b), kind === "bar" ? 0 : Infinity);
  let high = all.reduce((a, b) => Math.max(a, b), kind === "bar" ? 0 : -Infinity);
  if (!all.length) [low, high] = [0, 1];
  if (low === high) [low, high] = [low - (low ? Math.abs(low) * 0.1 : 1), high + (high ? Math.abs(high) * 0.1 : 1)];
  const count = Math.max(...series.map((s) => s.values.length), 1);
  const y = (v) => top + (height - top - bottom) * (1 - (v - low) / (high - low));
  const slot = (width - left - right) / (kind === "bar" ? count : Math.max(count - 1, 1));
  const svg = draw("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (let tick = 0; tick <= 4; tick++) {
    const value = low + ((high - low) * tick) / 4;
    svg.append(
      draw("line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, `${Number(value.toPrecision(3))}${unit}`));
  }
  const fits = names.length && names.length * Math.max(...names.map((name) => Math.min(name.length, 12))) < 84;
  for (const index of fits ? names.keys() : new Set([0, Math.floor((count - 1) / 2), count - 1])) {
    const x = left + slot * (kind === "bar" ? index + 0.5 : index);
    const name = names[index] ?? String(index);
    const tick = draw("text", { x, y: height - 6, "text-anchor": index && kind !== "bar" ? "end" : "middle" }, name.length > 12 ? `${name.slice(0, 11)}…` : name);
    if (name.length > 12) tick.append(draw("title", {}, name));
    svg.append(tick);
  }
  series.slice(0, 6).forEach(({ values }, number) => {
    if (kind === "bar") {
      const bar = (slot * 0.76) / Math.min(series.length, 6);
      values.forEach((value, index) => {
        if (!Number.isFinite(value)) return;
        const x = left + slot * (index + 0.12) + bar * number;
        svg.append(draw("rect", {
          class: `s${number + 1}`, x, width: Math.max(bar - 1, 1),
          y: Math.min(y(value), y(0)), height: Math.max(Math.abs(y(value) - y(0)), 0.5),
        }));
      });
      return;
    }
    let pen = false;
    const path = thin(values).map(([index, value]) => {
      if (!Number.isFinite(value)) { pen = false; return ""; }
      const step = `${pen ? "L" : "M"}${(left + slot * index).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = true;
      return step;
    }).join("");
    const line = draw("path", { d: path });
    line.classList.add(`s${number + 1}`);
    line.style.fill = "none";
    svg.append(line);
  });
  return svg;
}

// Keeps at most 2000 points: more cannot be seen and take long to draw.
function thin(values) {
  const step = Math.ceil(values.length / 2000);
  return values.map((value, index) => [index, value]).filter(([index]) => index % step === 0);
}

async function copyText(text, button, label = "Copy") {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1500);
}
