// Builds the table of a request, whose columns are the elements along the last axis of inputs that share rows.

const MOST_SHOWN = 200; // Rows of fields: a file may have more, which are kept beside them and sent.

// Names the columns by labels, by the tensor, or by numbers.
function columnsOf(tensors, widthOf) {
  return tensors.flatMap((tensor) => Array.from({ length: widthOf(tensor) }, (_, index) => {
    const label = labelsAxis(tensor) === tensor.shape.length - 1 && tensor.shape.at(-1) !== -1 ? tensor.labels[index] : null;
    const numbered = tensors.length === 1 ? String(index) : widthOf(tensor) === 1 ? tensor.name : `${tensor.name} ${index}`;
    const names = [label ?? numbered, ...(widthOf(tensor) === 1 ? [tensor.name] : [`${tensor.name} ${index}`, `${tensor.name}_${index}`])];
    return { tensor, index, name: names[0], names: names.map((name) => name.trim().toLowerCase()) };
  }));
}

// Takes the boxes that say whether an optional input is sent: it is once its column is filled in.
function gridEditor(tensors, sends = new Map()) {
  const [first] = tensors;
  const isVector = first.shape.length === 1 && first.shape[0] !== -1;
  const isOpen = first.shape[0] === -1;
  const widthOf = (tensor) => (tensor.shape.length === 1 && !isVector ? 1 : tensor.shape.at(-1));
  const columns = columnsOf(tensors, widthOf);
  const rowLabels = first.shape.length === 2 && labelsAxis(first) === 0 ? first.labels : null;
  const hasHeads = isOpen || rowLabels || (!isVector && first.shape[0] > 1);
  const isLone = columns.length === 1 && columns[0].name === "0";
  const head = make("tr", {}, ...(hasHeads ? [make("td")] : []), ...columns.map(({ name }) => make("th", { scope: "col" }, name)));
  const body = make("tbody");
  const fields = []; // Those on show, by row and column.
  let more = []; // Rows of text that are not on show.

  function addRow() {
    const row = fields.length;
    fields.push(columns.map(({ tensor, index }) => elementField(tensor, `${tensor.name}, row ${row}, column ${index}`)));
    const cells = fields[row].map((field) => make("td", {}, field));
    body.append(make("tr", {}, ...(hasHeads ? [make("th", { scope: "row" }, rowLabels?.[row] ?? String(row))] : []), ...cells));
  }
  function resize(count) {
    const shown = Math.min(count, MOST_SHOWN);
    while (fields.length < shown) addRow();
    while (fields.length > shown) { body.lastChild.remove(); fields.pop(); }
    more.length = Math.min(more.length, count - shown);
    while (more.length < count - shown) more.push(columns.map(({ tensor }) => blank(tensor)));
    aside.hidden = !more.length;
    kept.textContent = `${more.length.toLocaleString()} more rows are sent, which are not shown. `;
    buttons.forEach((button) => { button.disabled = more.length > 0; });
  }
  function put(row, column, text) {
    if (row < fields.length) { if (fields[row][column]) writeField(fields[row][column], text); }
    else if (more[row - fields.length] && columns[column]) more[row - fields.length][column] = text;
  }
  const touch = (column) => { if (sends.has(columns[column]?.tensor)) sends.get(columns[column].tensor).checked = true; };
  // Puts rows of text into the table from a place on; what is undefined stays.
  function fill(values, top = 0, left = 0) {
    if (isOpen) resize(Math.max(top + values.length, top ? fields.length + more.length : 0));
    values.forEach((row, r) => row.forEach((text, c) => { if (text !== undefined) { put(top + r, left + c, text); touch(left + c); } }));
  }
  async function read(file) {
    const { header, values } = await tableIn(file, columns.flatMap(({ names }) => names));
    if (!values.length) throw new Error("it has no rows");
    if (header) fill(byName(header, values));
    else fill((columns.length === 1 ? values.flat().map((text) => [text]) : values).map((row) => row.map((text, c) => filled(text, columns[c]))));
  }
  const filled = (text, column) => text ?? (column && isBytes(column.tensor) ? "" : "null");
  // Orders the columns of a file as those of the table: by their names, else by their number.
  function byName(header, values) {
    const titles = header.map((title) => title.trim().toLowerCase());
    const places = columns.map(({ names }) => names.map((name) => titles.indexOf(name)).find((at) => at >= 0) ?? -1);
    const isKnown = places.some((at) => at >= 0);
    if (!isKnown && header.length !== columns.length) {
      throw new Error(`expected the columns ${columns.map(({ name }) => name).join(", ")}, got ${header.slice(0, 30).join(", ")}`);
    }
    return values.map((row) => columns.map((column, c) => {
      const place = isKnown ? places[c] : c;
      return place < 0 ? undefined : filled(row[place], column);
    }));
  }
  body.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text");
    if (!/[\t\n]/.test(text.trim())) return;
    event.preventDefault();
    const [top, left] = placeOf(event.target);
    fill(text.trimEnd().split(/\r?\n/).map((line) => line.split("\t")), top, left);
    body.dispatchEvent(new Event("edited", { bubbles: true }));
  });
  body.addEventListener("input", (event) => touch(placeOf(event.target)[1]));
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.target.type !== "text") return;
    event.preventDefault();
    const [row, column] = placeOf(event.target);
    if (step > 0 && isOpen && row === fields.length - 1 && !more.length) resize(row + 2);
    fields[row + step]?.[column]?.focus();
  });
  const placeOf = (field) => {
    const row = fields.findIndex((each) => each.includes(field));
    return [row, fields[row].indexOf(field)];
  };
  const changed = (count) => { resize(count); body.dispatchEvent(new Event("edited", { bubbles: true })); };
  const buttons = [
    make("button", { type: "button", class: "small", onclick: () => changed(fields.length + 1) }, "Add row"),
    make("button", { type: "button", class: "small", onclick: () => changed(Math.max(fields.length - 1, 0)) }, "Remove row"),
  ];
  const kept = make("span");
  const aside = make("p", { class: "note", hidden: true }, kept, make("button", { type: "button", class: "small", onclick: () => changed(fields.length) }, "Leave them out"));
  resize(isVector || isOpen ? 1 : first.shape[0]);
  const tools = make("div", { class: "tools" }, ...(isOpen ? [...buttons, fileButton(first, read, ".csv,.tsv,.json,.txt,.parquet")] : []));
  const scroll = make("div", { class: "scroll tall" }, make("table", { class: "grid" }, ...(isLone ? [] : [make("thead", {}, head)]), body));

  const of = (tensor) => {
    const mine = columns.flatMap((column, c) => (column.tensor === tensor ? [c] : []));
    const own = () => fields.flatMap((row) => mine.map((c) => row[c]));
    return {
      randomise: () => own().forEach((field) => writeField(field, plainText(randomElement(tensor)))),
      show: ({ shape, data }) => {
        if (isOpen) resize(shape[0]);
        data.forEach((json, i) => put(Math.floor(i / mine.length), mine[i % mine.length], plainText(json)));
      },
      value: () => {
        const rows = fields.length + more.length;
        const shape = isVector ? [mine.length] : tensor.shape.length === 1 ? [rows] : [rows, mine.length];
        return { shape, data: [...own().map((field) => fieldElement(tensor, field)), ...more.flatMap((row) => mine.map((c) => element(tensor, row[c])))] };
      },
      fields: own,
    };
  };
  return { parts: [scroll, aside, tools], read: isOpen ? read : null, of };
}

// Reads a file as {header, values}. Known names tell a header from a row.
const tableIn = async (file, names) => (isParquet(file) ? readParquet(await file.arrayBuffer()) : parseTable(await file.text(), names));

// Reads CSV with quotes, tab-separated values, JSON rows or JSON records.
function parseTable(text, names) {
  try {
    const value = parseAnswer(text);
    const list = Array.isArray(value) ? value : [value];
    if (list[0] && typeof list[0] === "object" && !Array.isArray(list[0])) {
      const header = Object.keys(list[0]);
      return { header, values: list.map((each) => header.map((key) => textOr(each[key]))) };
    }
    return { header: null, values: (Array.isArray(list[0]) ? list : [list]).map((row) => row.map((cell) => textOr(cell))) };
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
