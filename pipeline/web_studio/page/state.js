// What a page shows, as the part of its address after #: `#grid?who=figures:a&who=figures:b&frames=16`.
// It is never sent to the server by the browser itself.

export function read() {
  const [page, query = ""] = location.hash.slice(1).split("?");
  return { page, values: new URLSearchParams(query) };
}

export function write(page, fields) {
  const values = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of [value].flat()) if (one !== undefined && one !== null && one !== "") values.append(name, String(one));
  }
  // Colons and slashes may stay as they are, which keeps links readable.
  const query = values.toString().replaceAll("%3A", ":").replaceAll("%2F", "/");
  const hash = `#${page}${query ? `?${query}` : ""}`;
  if (hash !== location.hash) history.replaceState(null, "", hash);
}

export function number(values, name, otherwise) {
  const found = Number(values.get(name) ?? NaN);
  return Number.isFinite(found) ? found : otherwise;
}
