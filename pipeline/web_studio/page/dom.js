// Elements, built without HTML in strings: names of files and labels are foreign text.

export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && key !== "list" && typeof value !== "string") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function button(text, action, attributes = {}) {
  return el("button", { type: "button", class: "button", onclick: action, ...attributes }, text);
}

// A choice of one of several values, each a label or [value, label].
export function select(label, values, chosen, change) {
  const options = values.map((value) => {
    const [key, text] = Array.isArray(value) ? value : [value, value];
    return el("option", { value: key, selected: key === chosen }, text);
  });
  return el("label", { class: "field" }, el("span", {}, label), el("select", { onchange: (event) => change(event.target.value) }, options));
}

export function slider(label, { min, max, step, value, format = String, change }) {
  const shown = el("output", {}, format(value));
  const input = el("input", {
    type: "range", min: String(min), max: String(max), step: String(step), "aria-label": label,
    oninput: (event) => {
      shown.textContent = format(Number(event.target.value));
      input.setAttribute("aria-valuetext", shown.textContent);
      change(Number(event.target.value));
    },
  });
  input.value = String(value);
  input.setAttribute("aria-valuetext", format(value));
  return el("label", { class: "field slider" }, el("span", {}, label, " ", shown), input);
}

export function announce(text) {
  document.getElementById("status").textContent = text;
}

export function problem(text) {
  return el("p", { class: "flag", role: "alert" }, el("b", { "aria-hidden": "true" }, "!"), el("span", {}, text));
}
