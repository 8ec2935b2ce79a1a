// Unpacks Zstandard, which few browsers do: https://www.rfc-editor.org/rfc/rfc8878

const LITERAL_LENGTHS = codes("0+0 1+0 2+0 3+0 4+0 5+0 6+0 7+0 8+0 9+0 10+0 11+0 12+0 13+0 14+0 15+0 16+1 18+1 20+1 22+1 24+2 28+2 32+3 40+3 48+4 64+6 128+7 256+8 512+9 1024+10 2048+11 4096+12 8192+13 16384+14 32768+15 65536+16");
const MATCH_LENGTHS = codes(`${Array.from({ length: 32 }, (_, i) => `${i + 3}+0`).join(" ")} 35+1 37+1 39+1 41+1 43+2 47+2 51+3 59+3 67+4 83+4 99+5 131+7 259+8 515+9 1027+10 2051+11 4099+12 8195+13 16387+14 32771+15 65539+16`);
// Accuracy and frequencies of the tables that a block need not bring.
const USUAL_LITERALS = [6, [4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1]];
const USUAL_OFFSETS = [5, [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1]];
const USUAL_MATCHES = [6, [1, 4, 3, 2, 2, 2, 2, 2, 2, ...Array(37).fill(1), -1, -1, -1, -1, -1, -1, -1]];
const logOf = (number) => 31 - Math.clz32(number);

function codes(text) {
  return text.split(" ").map((code) => code.split("+").map(Number));
}

function unpackZstd(packed, size) {
  const out = new Uint8Array(size);
  const data = new Reader(packed);
  let at = 0;
  while (data.at < packed.length) {
    const magic = data.uint32();
    if (magic >>> 4 === 0x184d2a5) { data.take(data.uint32()); continue; }
    if (magic !== 0xfd2fb528) throw new Error("a page is broken");
    const flags = data.byte();
    const isSingle = (flags >> 5) & 1;
    data.take((isSingle ? 0 : 1) + [0, 1, 2, 4][flags & 3] + [isSingle, 2, 4, 8][flags >> 6]);
    const state = { out, at, offsets: [1, 4, 8], trees: null, tables: [] };
    for (let isLast = 0; !isLast;) {
      const [low, middle, high] = data.take(3);
      isLast = low & 1;
      const [kind, length] = [(low >> 1) & 3, (low | (middle << 8) | (high << 16)) >> 3];
      if (kind === 0) append(state, data.take(length));
      else if (kind === 1) append(state, new Uint8Array(length).fill(data.byte()));
      else if (kind === 2) unpackBlock(data.part(length), state);
      else throw new Error("a page is broken");
    }
    if (flags & 4) data.take(4);
    at = state.at;
  }
  return out;
}

function append(state, bytes) {
  state.out.set(bytes, state.at);
  state.at += bytes.length;
}

function unpackBlock(data, state) {
  const literals = literalsOf(data, state);
  let used = 0;
  for (const [literalLength, offset, matchLength] of sequencesOf(data, state)) {
    append(state, literals.subarray(used, used + literalLength));
    used += literalLength;
    const { out, at } = state;
    if (!offset || offset > at || at + matchLength > out.length) throw new Error("a page is broken");
    for (let i = at; i < at + matchLength; i++) out[i] = out[i - offset];
    state.at += matchLength;
  }
  append(state, literals.subarray(used));
}

function literalsOf(data, state) {
  const head = data.bytes[data.at];
  const [kind, format] = [head & 3, (head >> 2) & 3];
  const number = (bytes) => bytes.reduce((sum, byte, i) => sum + byte * 2 ** (8 * i), 0);
  if (kind < 2) {
    const length = format % 2 === 0 ? data.byte() >> 3 : Math.floor(number(data.take(format === 1 ? 2 : 3)) / 16);
    return kind === 0 ? data.take(length) : new Uint8Array(length).fill(data.byte());
  }
  const [headSize, bits] = [[3, 10], [3, 10], [4, 14], [5, 18]][format];
  const sizes = Math.floor(number(data.take(headSize)) / 16);
  const [length, packedLength] = [sizes % 2 ** bits, Math.floor(sizes / 2 ** bits)];
  const packed = data.part(packedLength);
  if (kind === 2) state.trees = treeOf(packed);
  if (!state.trees) throw new Error("a page is broken");
  const out = new Uint8Array(length);
  if (format === 0) { decodeTree(packed.take(packedLength - packed.at), state.trees, out); return out; }
  const parts = [0, 1, 2].map(() => packed.byte() + packed.byte() * 256);
  const each = Math.ceil(length / 4);
  [...parts, null].forEach((part, i) => decodeTree(packed.take(part ?? packedLength - packed.at), state.trees, out.subarray(i * each, i < 3 ? (i + 1) * each : length)));
  return out;
}

// Huffman codes as a table from the next bits to a symbol and its number of bits.
function treeOf(data) {
  const head = data.byte();
  const weights = head < 128 ? weightsOf(data.part(head)) : [...data.take(Math.ceil((head - 127) / 2))].flatMap((byte) => [byte >> 4, byte & 15]).slice(0, head - 127);
  const sum = weights.reduce((total, weight) => total + (weight ? 2 ** (weight - 1) : 0), 0);
  const most = logOf(sum) + 1;
  weights.push(logOf(2 ** most - sum) + 1);
  const table = [];
  for (let weight = 1; weight <= most; weight++) {
    weights.forEach((each, symbol) => { if (each === weight) table.push(...Array(2 ** (weight - 1)).fill([symbol, most + 1 - weight])); });
  }
  if (table.length !== 2 ** most) throw new Error("a page is broken");
  return { table, most };
}

function weightsOf(data) {
  const table = stateTable(...frequenciesOf(data));
  const bits = new BackwardBits(data.take(data.bytes.length - data.at));
  const states = [bits.read(table.accuracy), bits.read(table.accuracy)];
  const weights = [];
  for (let turn = 0; weights.length < 256; turn = 1 - turn) {
    const [symbol, base, count] = table.entries[states[turn]];
    weights.push(symbol);
    states[turn] = base + bits.read(count);
    if (bits.left < 0) { weights.push(table.entries[states[1 - turn]][0]); break; }
  }
  return weights;
}

function decodeTree(bytes, { table, most }, out) {
  const bits = new BackwardBits(bytes);
  let window = bits.read(most);
  const mask = 2 ** most - 1;
  for (let i = 0; i < out.length; i++) {
    const [symbol, count] = table[window];
    out[i] = symbol;
    window = ((window << count) & mask) | bits.read(count);
  }
}

function sequencesOf(data, state) {
  let count = data.byte();
  if (count === 255) count = data.byte() + data.byte() * 256 + 0x7f00;
  else if (count > 127) count = (count - 128) * 256 + data.byte();
  if (!count) return [];
  const modes = data.byte();
  const kinds = [[USUAL_LITERALS, modes >> 6], [USUAL_OFFSETS, (modes >> 4) & 3], [USUAL_MATCHES, (modes >> 2) & 3]];
  kinds.forEach(([usual, mode], i) => {
    if (mode === 0) state.tables[i] = stateTable(...usual);
    if (mode === 1) state.tables[i] = { accuracy: 0, entries: [[data.byte(), 0, 0]] };
    if (mode === 2) state.tables[i] = stateTable(...frequenciesOf(data));
  });
  const tables = state.tables;
  const bits = new BackwardBits(data.take(data.bytes.length - data.at));
  const states = tables.map((table) => bits.read(table.accuracy));
  return Array.from({ length: count }, (_, i) => {
    const [literalCode, offsetCode, matchCode] = tables.map((table, each) => table.entries[states[each]][0]);
    const offsetValue = 2 ** offsetCode + bits.read(offsetCode);
    const matchLength = MATCH_LENGTHS[matchCode][0] + bits.read(MATCH_LENGTHS[matchCode][1]);
    const literalLength = LITERAL_LENGTHS[literalCode][0] + bits.read(LITERAL_LENGTHS[literalCode][1]);
    for (const each of i < count - 1 ? [0, 2, 1] : []) {
      const [, base, more] = tables[each].entries[states[each]];
      states[each] = base + bits.read(more);
    }
    return [literalLength, offsetOf(offsetValue, literalLength, state.offsets), matchLength];
  });
}

// Small values stand for one of the last offsets.
function offsetOf(value, literalLength, last) {
  if (value > 3) { last.unshift(value - 3); last.pop(); return last[0]; }
  const index = value - 1 + (literalLength ? 0 : 1);
  const offset = index === 3 ? last[0] - 1 : last[index];
  if (index) { last.splice(Math.min(index, 2), 1); last.unshift(offset); }
  return offset;
}

function frequenciesOf(data) {
  let position = data.at * 8;
  const read = (count) => {
    let value = 0;
    for (let i = 0; i < count; i++, position++) value |= (((data.bytes[position >> 3] ?? 0) >> (position & 7)) & 1) << i;
    return value;
  };
  const accuracy = read(4) + 5;
  const found = [];
  let remaining = 2 ** accuracy;
  while (remaining > 0 && found.length < 256) {
    const count = logOf(remaining + 1) + 1;
    const lower = 2 ** (count - 1) - 1;
    const threshold = 2 ** count - 2 - remaining;
    let value = read(count);
    if ((value & lower) < threshold) { position--; value &= lower; } else if (value > lower) value -= threshold;
    found.push(value - 1);
    remaining -= Math.abs(value - 1);
    for (let zeros = value === 1 ? 3 : 0; zeros === 3;) {
      zeros = read(2);
      found.push(...Array(zeros).fill(0));
    }
  }
  data.at = Math.ceil(position / 8);
  return [accuracy, found];
}

// A table of states: [symbol, base of the next state, number of bits to add].
function stateTable(accuracy, frequencies) {
  const size = 2 ** accuracy;
  const symbols = new Array(size);
  let high = size - 1;
  frequencies.forEach((frequency, symbol) => { if (frequency === -1) symbols[high--] = symbol; });
  let at = 0;
  const step = (size >> 1) + (size >> 3) + 3;
  frequencies.forEach((frequency, symbol) => {
    for (let i = 0; i < frequency; i++) {
      symbols[at] = symbol;
      do at = (at + step) & (size - 1); while (at > high);
    }
  });
  const next = frequencies.map((frequency) => Math.abs(frequency));
  const entries = symbols.map((symbol) => {
    const state = next[symbol]++;
    const count = accuracy - logOf(state);
    return [symbol, (state << count) - size, count];
  });
  return { accuracy, entries };
}

// Bits from the end of some bytes to their start: a set bit marks the end.
class BackwardBits {
  constructor(bytes) {
    if (!bytes.at(-1)) throw new Error("a page is broken");
    this.bytes = bytes;
    this.left = bytes.length * 8 - 8 + logOf(bytes.at(-1));
  }
  // Bits before the start are zero.
  read(count) {
    this.left -= count;
    let value = 0;
    for (let bit = count - 1; bit >= 0; bit--) {
      const at = this.left + bit;
      value = value * 2 + (at < 0 ? 0 : (this.bytes[at >> 3] >> (at & 7)) & 1);
    }
    return value;
  }
}
