// Safetensors: eight bytes of length, a JSON header, and the arrays back to back, little-endian.

const VIEWS = {
  F32: Float32Array, F64: Float64Array, I64: BigInt64Array, I32: Int32Array, I16: Int16Array, I8: Int8Array,
  U64: BigUint64Array, U32: Uint32Array, U16: Uint16Array, U8: Uint8Array, BOOL: Uint8Array,
};

/** The arrays in `buffer` by name, each `{shape, data}`. */
export function read(buffer) {
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8)));
  const arrays = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [from, to] = entry.data_offsets.map((offset) => start + offset);
    const data = new VIEWS[entry.dtype](buffer.slice(from, to)); // a copy is aligned for any type
    arrays[name] = { shape: entry.shape, data };
  }
  return arrays;
}

/** The bytes of `arrays`, each `{dtype, shape, data}`, and of `metadata`, all texts. */
export function written(arrays, metadata) {
  const header = metadata ? { __metadata__: metadata } : {};
  let end = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(arrays)) {
    header[name] = { dtype, shape, data_offsets: [end, end + data.byteLength] };
    end += data.byteLength;
  }
  const text = new TextEncoder().encode(JSON.stringify(header).padEnd(8));
  const length = new DataView(new ArrayBuffer(8));
  length.setBigUint64(0, BigInt(text.length), true);
  return [length.buffer, text, ...Object.values(arrays).map(({ data }) => data)];
}
