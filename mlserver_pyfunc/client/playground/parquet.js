// Reads the flat columns of a Parquet file: https://github.com/apache/parquet-format

const PARQUET_CODECS = ["none", "Snappy", "gzip", "LZO", "brotli", "LZ4", "zstd", "LZ4"];

const isParquet = (file) => /\.(parquet|pq)$/i.test(file.name);

// Returns {header, values}, as parseTable does: an element is text, and null if it is absent.
async function readParquet(buffer) {
  const bytes = new Uint8Array(buffer);
  const magic = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (bytes.length < 12 || magic(0) !== "PAR1" || magic(bytes.length - 4) !== "PAR1") throw new Error("it is no Parquet file");
  const size = new Reader(bytes, bytes.length - 8).uint32();
  if (size > bytes.length - 12) throw new Error("its end is missing");
  const meta = new Thrift(bytes, bytes.length - 8 - size).struct();
  const leaves = flatColumns(meta[2]);
  if (!leaves.length) throw new Error("it has no column that is not nested");
  const columns = leaves.map(() => []);
  for (const group of meta[4]) {
    for (const [number, leaf] of leaves.entries()) {
      const chunk = group[1].find((each) => each[3]?.[3].length === 1 && textOf(each[3][3][0]) === leaf.name);
      await readChunk(bytes, chunk[3], leaf, columns[number]);
    }
  }
  return { header: leaves.map(({ name }) => name), values: Array.from({ length: meta[3] }, (_, row) => columns.map((column) => column[row])) };
}

const textOf = (bytes) => new TextDecoder().decode(bytes);

// The columns at the top of the schema that hold one value a row.
function flatColumns([root, ...elements]) {
  const found = [];
  let at = 0;
  const skip = () => { for (let left = elements[at++][5] ?? 0; left > 0; left--) skip(); };
  for (let left = root[5]; left > 0; left--) {
    const { 1: type, 2: length, 3: repetition, 4: name, 5: children, 6: converted, 7: scale, 10: logical } = elements[at];
    if (!children && repetition !== 2) found.push({ name: textOf(name), type, length, isOptional: repetition === 1, converted, scale, logical: logical ?? {} });
    skip();
  }
  return found;
}

async function readChunk(bytes, meta, leaf, column) {
  const { 4: codec, 5: count, 7: size, 9: dataOffset, 11: dictionaryOffset } = meta;
  const reader = new Thrift(bytes, dictionaryOffset > 0 ? Math.min(dictionaryOffset, dataOffset) : dataOffset);
  const end = reader.at + size;
  const written = column.length;
  let dictionary = null;
  while (reader.at < end && column.length - written < count) {
    const { 1: kind, 2: plainSize, 3: packedSize, 5: first, 7: words, 8: second } = reader.struct();
    const page = bytes.subarray(reader.at, reader.at + packedSize);
    reader.at += packedSize;
    if (kind === 2) dictionary = plain(new Reader(await unpacked(page, codec, plainSize)), leaf, words[1]).map((value) => shown(value, leaf));
    if (kind === 0) {
      const data = new Reader(await unpacked(page, codec, plainSize));
      const levels = leaf.isOptional ? runs(data.part(data.uint32()), 1, first[1]) : null;
      put(column, levels, first[1], (n) => elementsOf(data, first[2], leaf, n, dictionary));
    }
    if (kind === 3) {
      const { 1: total, 4: encoding, 5: levelSize, 6: repetitionSize, 7: isPacked } = second;
      const lead = levelSize + repetitionSize;
      const levels = leaf.isOptional ? runs(new Reader(page.subarray(repetitionSize, lead)), 1, total) : null;
      const data = page.subarray(lead);
      const reader = new Reader(isPacked === false ? data : await unpacked(data, codec, plainSize - lead));
      put(column, levels, total, (n) => elementsOf(reader, encoding, leaf, n, dictionary));
    }
  }
}

function put(column, levels, count, read) {
  const present = levels ? levels.filter((level) => level === 1).length : count;
  const values = read(present);
  let next = 0;
  for (let i = 0; i < count; i++) column.push(!levels || levels[i] === 1 ? values[next++] : null);
}

function elementsOf(data, encoding, leaf, count, dictionary) {
  if (!count) return [];
  if (encoding === 2 || encoding === 8) {
    if (!dictionary) throw new Error(`column "${leaf.name}" lacks its dictionary`);
    return runs(data, data.byte(), count).map((index) => dictionary[index]);
  }
  return elementsWritten(data, encoding, leaf, count).map((value) => shown(value, leaf));
}

function elementsWritten(data, encoding, leaf, count) {
  if (encoding === 0) return plain(data, leaf, count);
  if (encoding === 3 && leaf.type === 0) return runs(data.part(data.uint32()), 1, count).map(Boolean);
  if (encoding === 5) return deltas(data).map((value) => (leaf.type === 1 ? Number(BigInt.asIntN(32, value)) : BigInt.asIntN(64, value)));
  if (encoding === 6) return deltas(data).map((size) => data.take(Number(size)));
  if (encoding === 7) {
    const shared = deltas(data);
    let last = new Uint8Array();
    return deltas(data).map((size, i) => { last = Uint8Array.from([...last.subarray(0, Number(shared[i])), ...data.take(Number(size))]); return last; });
  }
  if (encoding === 9) {
    const width = { 1: 4, 2: 8, 4: 4, 5: 8, 7: leaf.length }[leaf.type];
    const joined = Uint8Array.from({ length: count * width }, (_, i) => data.bytes[data.at + (i % width) * count + Math.floor(i / width)]);
    return plain(new Reader(joined), leaf, count);
  }
  throw new Error(`column "${leaf.name}" has encoding ${encoding}, which is unknown here`);
}

function plain(data, leaf, count) {
  const read = {
    1: () => data.int32(), 2: () => data.int64(), 3: () => data.int96(), 4: () => data.float(), 5: () => data.double(),
    6: () => data.take(data.uint32()), 7: () => data.take(leaf.length),
  }[leaf.type];
  const bit = (_, i) => Boolean((data.bytes[data.at + (i >> 3)] >> (i & 7)) & 1);
  return Array.from({ length: count }, leaf.type === 0 ? bit : read);
}

// Runs of one value, and groups of eight in as few bits as they need.
function runs(data, width, count) {
  const values = [];
  while (values.length < count) {
    const head = data.varint();
    if (head % 2 === 0) {
      let value = 0;
      for (let i = 0; i < Math.ceil(width / 8); i++) value += data.byte() * 2 ** (8 * i);
      const length = Math.min(head / 2, count - values.length);
      for (let i = 0; i < length; i++) values.push(value);
      if (!length) throw new Error("a run of no values");
    } else for (const value of bitsOf(data, width, Math.floor(head / 2) * 8)) if (values.length < count) values.push(Number(value));
  }
  return values;
}

function bitsOf(data, width, count) {
  const packed = data.take(Math.ceil((width * count) / 8));
  const values = [];
  let held = 0n;
  let bits = 0;
  let at = 0;
  const mask = (1n << BigInt(width)) - 1n;
  for (let i = 0; i < count; i++) {
    while (bits < width) { held |= BigInt(packed[at++] ?? 0) << BigInt(bits); bits += 8; }
    values.push(held & mask);
    held >>= BigInt(width);
    bits -= width;
  }
  return values;
}

// Integers as differences, in blocks of miniblocks that have widths of their own.
function deltas(data) {
  const [blockSize, blocks, total] = [data.varint(), data.varint(), data.varint()];
  const each = blockSize / blocks;
  const values = [data.bigZigzag()];
  while (values.length < total) {
    const least = data.bigZigzag();
    const widths = [...data.take(blocks)];
    for (const width of widths) {
      if (values.length >= total) break;
      for (const value of bitsOf(data, width, each)) if (values.length < total) values.push(BigInt.asIntN(64, values.at(-1) + least + value));
    }
  }
  return values.slice(0, total);
}

// The text of a value, in the form that a field of a table takes.
function shown(value, { type, converted, scale, logical, name }) {
  if (type === 0) return String(value);
  const decimal = logical[5] ? logical[5][1] ?? 0 : converted === 5 ? scale ?? 0 : null;
  if (decimal != null) return withPoint(typeof value === "object" ? wide(value) : BigInt(value), decimal);
  if (logical[6] || converted === 6) return new Date(value * 864e5).toISOString().slice(0, 10);
  const unit = logical[8] ? 1000n ** BigInt(Number(Object.keys(logical[8][2])[0])) : { 9: 1000n, 10: 1000000n }[converted];
  if (unit && type === 2) return moment(value * (1000000000n / unit));
  if (type === 3) return moment(value);
  if (logical[10]?.[2] === false || (converted >= 11 && converted <= 14)) return String(type === 1 ? value >>> 0 : BigInt.asUintN(64, value));
  if (type === 4) return shortest(value);
  if (logical[15]) return String(half(value));
  if (type < 6) return String(value);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(value);
  } catch {
    throw new Error(`column "${name}" holds bytes that are no text`);
  }
}

const wide = (bytes) => BigInt.asIntN(bytes.length * 8, bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n));

function withPoint(number, scale) {
  const digits = String(number < 0n ? -number : number).padStart(scale + 1, "0");
  return (number < 0n ? "-" : "") + (scale ? `${digits.slice(0, -scale)}.${digits.slice(-scale)}` : digits);
}

function moment(nanoseconds) {
  const [seconds, rest] = [nanoseconds / 1000000000n, ((nanoseconds % 1000000000n) + 1000000000n) % 1000000000n];
  const whole = nanoseconds < 0n && rest ? seconds - 1n : seconds;
  return `${new Date(Number(whole) * 1000).toISOString().slice(0, 19)}${rest ? `.${String(rest).padStart(9, "0").replace(/0+$/, "")}` : ""}`;
}

// The shortest number that is this float of 32 bits.
function shortest(value) {
  for (let digits = 6; digits < 9; digits++) {
    const number = Number(value.toPrecision(digits));
    if (Math.fround(number) === value) return String(number);
  }
  return String(value);
}

function half([low, high]) {
  const [exponent, fraction] = [(high >> 2) & 31, ((high & 3) << 8) | low];
  const size = exponent === 31 ? (fraction ? NaN : Infinity) : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  return high & 128 ? -size : size;
}

async function unpacked(page, codec, size) {
  if (codec === 0) return page;
  if (codec === 1) return snappy(page, size);
  if (codec === 6) return unpackZstd(page, size);
  const name = PARQUET_CODECS[codec] ?? codec;
  let stream;
  try {
    stream = new DecompressionStream(name);
  } catch {
    throw new Error(`this browser does not unpack ${name}: write the file with Snappy, gzip or zstd`);
  }
  return new Uint8Array(await new Response(new Blob([page]).stream().pipeThrough(stream)).arrayBuffer());
}

// https://github.com/google/snappy/blob/main/format_description.txt
function snappy(packed, size) {
  const data = new Reader(packed);
  if (data.varint() !== size) throw new Error("a page is broken");
  const out = new Uint8Array(size);
  let at = 0;
  while (data.at < packed.length) {
    const tag = data.byte();
    if (tag & 3) {
      const [length, back] = (tag & 3) === 1
        ? [((tag >> 2) & 7) + 4, ((tag >> 5) << 8) + data.byte()]
        : [(tag >> 2) + 1, (tag & 3) === 2 ? data.byte() + data.byte() * 256 : data.uint32()];
      if (!back || back > at) throw new Error("a page is broken");
      for (let i = 0; i < length; i++, at++) out[at] = out[at - back];
      continue;
    }
    let length = tag >> 2;
    if (length >= 60) length = Array.from({ length: length - 59 }, () => data.byte()).reduce((sum, byte, i) => sum + byte * 2 ** (8 * i), 0);
    out.set(data.take(length + 1), at);
    at += length + 1;
  }
  return out;
}

class Reader {
  constructor(bytes, at = 0) {
    this.bytes = bytes;
    this.at = at;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  byte() { return this.take(1)[0]; }
  take(size) {
    if (this.at + size > this.bytes.length) throw new Error("its end is missing");
    this.at += size;
    return this.bytes.subarray(this.at - size, this.at);
  }
  part(size) { return new Reader(this.take(size)); }
  uint32() { this.at += 4; return this.view.getUint32(this.at - 4, true); }
  int32() { this.at += 4; return this.view.getInt32(this.at - 4, true); }
  int64() { this.at += 8; return this.view.getBigInt64(this.at - 8, true); }
  float() { this.at += 4; return this.view.getFloat32(this.at - 4, true); }
  double() { this.at += 8; return this.view.getFloat64(this.at - 8, true); }
  // A moment in nanoseconds: those of the day, and a day that is counted from noon of 1 January 4713 BC.
  int96() { const time = this.int64(); return BigInt(this.uint32() - 2440588) * 86400000000000n + time; }
  bigVarint() {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.byte();
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  }
  varint() { return Number(this.bigVarint()); }
  bigZigzag() { const value = this.bigVarint(); return (value >> 1n) ^ -(value & 1n); }
  zigzag() { return Number(this.bigZigzag()); }
}

// Thrift's compact form. A struct becomes an object whose keys are the numbers of its fields.
class Thrift extends Reader {
  struct() {
    const fields = {};
    for (let id = 0; ;) {
      const head = this.byte();
      if (head === 0) return fields;
      id = head >> 4 ? id + (head >> 4) : this.zigzag();
      const type = head & 15;
      fields[id] = type < 3 ? type === 1 : this.value(type);
    }
  }
  value(type) {
    if (type < 3) return this.byte() === 1;
    if (type === 3) return this.byte();
    if (type < 7) return this.zigzag();
    if (type === 7) return this.double();
    if (type === 8) return this.take(this.varint());
    if (type === 9 || type === 10) {
      const head = this.byte();
      return Array.from({ length: head >> 4 === 15 ? this.varint() : head >> 4 }, () => this.value(head & 15));
    }
    if (type === 12) return this.struct();
    throw new Error("its description is broken");
  }
}
