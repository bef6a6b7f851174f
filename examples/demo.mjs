// Three requests: JSON, images in float32, a language model's logits in bfloat16.
//     node examples/demo.mjs http://127.0.0.1:8000
// It needs Node.js 18 or newer, and no package.
const url = `${process.argv[2]}/v1/cross_entropy?outputs=loss`;

// Numbers from 0 to 10 that look like random ones, and a class for each position.
const logit = (i) => ((i * 7919) % 1009) / 100;
const labels = (count, classes) =>
  BigInt64Array.from({ length: count }, (_, i) => BigInt((i * 31) % classes));

// A body of safetensors: the header's length in 8 bytes, the header, the tensors' bytes.
// Typed arrays are little-endian on every machine that Node.js is made for.
function safetensors(tensors) {
  const header = {};
  let end = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [end, (end += data.byteLength)] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const parts = Object.values(tensors).map(({ data }) => Buffer.from(data.buffer));
  return Buffer.concat([length, text, ...parts]);
}

async function show(name, type, body) {
  const headers = { "Content-Type": type, Accept: "application/json" };
  const response = await fetch(url, { method: "POST", headers, body });
  const answer = await response.json();
  if (response.status !== 200) throw new Error(`${response.status}: ${answer.detail}`);
  // NaN and infinities are "NaN", "Infinity" or "-Infinity", which Number reads.
  console.log(name.padEnd(14), Number(answer.loss).toFixed(4));
}

const rows = [[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [1, 3, 2, 3, 0], [0, 0, 0, 0, 0]];
const worked = JSON.stringify({ logits: rows, labels: [1, 4, 3, 2] });
await show("four rows", "application/json", worked);

const pixels = 256 * 256;
const images = Float32Array.from({ length: 4 * 3 * pixels }, (_, i) => logit(i));
await show("images", "application/x-safetensors", safetensors({
  labels: { dtype: "I64", shape: [4, 256, 256], data: labels(4 * pixels, 3) },
  logits: { dtype: "F32", shape: [4, 3, 256, 256], data: images },
}));

// bfloat16 is the upper half of float32: the sign, the exponent and 7 bits of the fraction.
const singles = Float32Array.from({ length: 64 * 32000 }, (_, i) => logit(i));
const halves = Uint16Array.from(new Uint32Array(singles.buffer), (bits) => bits >>> 16);
await show("language model", "application/x-safetensors", safetensors({
  labels: { dtype: "I64", shape: [64], data: labels(64, 32000) },
  logits: { dtype: "BF16", shape: [64, 32000], data: halves },
}));
