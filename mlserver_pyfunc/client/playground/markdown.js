// Draws the Markdown that models write, by elements and text alone: no text of it can become an element.

const looksLikeMarkdown = (text) => /^#{1,6} |\*\*\S|^ {0,3}(```|~~~)|^\s*([-*+]|\d{1,9}[.)]) |`[^`\n]+`|^\|.*\||\]\(https?:/m.test(text);

const MARKS = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*(?=\S)((?:[^*]|\*(?!\*))+?)\*\*|\*(?=[^\s*])([^*\n]*[^\s*])\*|~~(?=\S)([^~]+)~~|!?\[([^\]\n]+)\]\(([^)\s]+)\)|\bhttps?:\/\/[^\s<>()"'`]*[^\s<>()"'`.,;:!?]|\\([!-/:-@[-`{-~])/g;

function inlineMarkdown(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(MARKS)) {
    const [whole, , code, strong, em, struck, label, address, escaped] = found;
    parts.push(text.slice(end, found.index));
    end = found.index + whole.length;
    if (code != null) parts.push(make("code", {}, code));
    else if (strong != null) parts.push(make("strong", {}, ...inlineMarkdown(strong)));
    else if (em != null) parts.push(make("em", {}, ...inlineMarkdown(em)));
    else if (struck != null) parts.push(make("s", {}, ...inlineMarkdown(struck)));
    else if (label != null) parts.push(isWebAddress(address) ? link(address, label) : whole);
    else parts.push(escaped ?? link(whole, whole));
  }
  return [...parts, text.slice(end)];
}

function isWebAddress(address) {
  try {
    return /^https?:\/\//i.test(address) && ["http:", "https:"].includes(new URL(address).protocol);
  } catch {
    return false;
  }
}

const link = (href, text) => make("a", { href, rel: "noopener noreferrer", target: "_blank" }, text);

const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)/;
const isRule = (line) => /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/.test(line);
const cellsOf = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));

function markdown(text) {
  const box = make("div", { class: "markdown" });
  box.append(...blocks(text.replaceAll("\r\n", "\n").split("\n"), 0));
  return box;
}

function blocks(lines, depth) {
  const found = [];
  for (let at = 0; at < lines.length;) {
    const [element, next] = block(lines, at, depth);
    if (element) found.push(element);
    at = next;
  }
  return found;
}

// Draws what begins at a line. Returns its element, if there is one, and the line behind it.
function block(lines, at, depth) {
  const line = lines[at];
  if (!line.trim()) return [null, at + 1];
  const fence = line.match(/^ {0,3}(`{3,}|~{3,})/);
  if (fence) {
    let end = at + 1;
    while (end < lines.length && !lines[end].trim().startsWith(fence[1])) end++;
    return [make("pre", { tabindex: "0" }, lines.slice(at + 1, end).join("\n")), end + 1];
  }
  const heading = line.match(/^ {0,3}#{1,6} +(.*?)(?: +#+)?\s*$/);
  if (heading) return [make("p", { class: "heading" }, ...inlineMarkdown(heading[1])), at + 1];
  if (isRule(line)) return [make("hr"), at + 1];
  // Deeper is text: a model that runs away must not overflow the stack.
  if (depth < 8 && /^ {0,3}>/.test(line)) {
    let end = at;
    while (end < lines.length && /^ {0,3}>/.test(lines[end])) end++;
    const inner = lines.slice(at, end).map((each) => each.replace(/^ {0,3}> ?/, ""));
    return [make("blockquote", {}, ...blocks(inner, depth + 1)), end];
  }
  if (depth < 8 && ITEM.test(line)) return list(lines, at, depth);
  if (line.includes("|") && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(lines[at + 1] ?? "") && lines[at + 1].includes("|")) return pipeTable(lines, at);
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !/^ {0,3}(#{1,6} |>|`{3}|~{3})/.test(lines[end]) && !ITEM.test(lines[end]) && !isRule(lines[end])) end++;
  return [make("p", {}, ...inlineMarkdown(lines.slice(at, end).join("\n"))), end];
}

function list(lines, at, depth) {
  const [, indent, number] = lines[at].match(ITEM);
  const element = number ? make("ol", { start: number === "1" ? null : number }) : make("ul");
  let end = at;
  while (end < lines.length) {
    const item = lines[end].match(ITEM);
    if (!item || item[1].length < indent.length || Boolean(item[2]) !== Boolean(number)) break;
    const inner = [item[3]];
    // Lines that stand further in than the item belong to it, empty ones between them too.
    for (end++; end < lines.length; end++) {
      const isInner = lines[end].length - lines[end].trimStart().length > indent.length && lines[end].trim();
      if (!isInner && (lines[end].trim() || !/^\s+\S/.test(lines[end + 1] ?? "") || ITEM.exec(lines[end + 1])?.[1].length <= indent.length)) break;
      inner.push(lines[end]);
    }
    const least = Math.min(...inner.slice(1).filter((each) => each.trim()).map((each) => each.length - each.trimStart().length));
    const rest = inner.slice(1).map((each) => each.slice(least));
    const parts = blocks([inner[0], ...rest], depth + 1);
    const [first] = parts;
    element.append(make("li", {}, ...(first?.tagName === "P" && !first.className ? [...first.childNodes, ...parts.slice(1)] : parts)));
    while (end + 1 < lines.length && !lines[end].trim() && ITEM.test(lines[end + 1])) end++;
  }
  return [element, end];
}

function pipeTable(lines, at) {
  const heads = cellsOf(lines[at]);
  const rows = [];
  let end = at + 2;
  for (; end < lines.length && lines[end].includes("|") && lines[end].trim(); end++) rows.push(cellsOf(lines[end]));
  const table = make("table", { class: "plain" },
    make("thead", {}, make("tr", {}, ...heads.map((cell) => make("th", { scope: "col" }, ...inlineMarkdown(cell))))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...heads.map((_, i) => make("td", { class: "text" }, ...inlineMarkdown(row[i] ?? "")))))));
  return [make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "table" }, table), end];
}
