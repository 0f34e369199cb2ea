// Codes of clips: as text in links, blended, and moved along a factor; see codes.py, rendering.py and factors.py.

export function toText({ static: identity, dynamics }) {
  const bytes = new Uint8Array(new Float32Array([...identity, ...dynamics]).buffer);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// Return the codes in the text, or null if they are not of this model.
export function fromText(text, { static_size, dynamics_size }) {
  let numbers;
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    numbers = new Float32Array(bytes.buffer);
  } catch {
    return null;
  }
  if (numbers.length !== static_size + dynamics_size || !numbers.every((one) => Math.abs(one) <= 1e4)) return null;
  return { static: numbers.slice(0, static_size), dynamics: numbers.slice(static_size) };
}

export function blend(codes, weights) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return codes[0].map((_, index) => codes.reduce((sum, code, number) => sum + (weights[number] / total) * code[index], 0));
}

export function applyWalk(code, { mean, basis, ends }, { towards, amount }, groups) {
  const around = code.map((value, index) => value - mean[index]);
  const steps = basis.map((direction, row) => ends[towards][row] - direction.reduce((sum, value, index) => sum + value * around[index], 0));
  const moved = code.map((value, index) => Math.max(0, value + amount * steps.reduce((sum, step, row) => sum + step * basis[row][index], 0)));
  const size = code.length / groups;
  for (let start = 0; start < code.length; start += size) {
    const group = moved.subarray(start, start + size);
    const total = group.reduce((sum, value) => sum + value, 0);
    group.forEach((value, index) => (group[index] = value / total));
  }
  return moved;
}
