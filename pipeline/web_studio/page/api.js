// Calls of the API. A busy server is asked again, after the time that it names.

const ATTEMPTS = 5;

export class Refused extends Error {}

async function send(path, options) {
  for (let attempt = 1; ; attempt++) {
    let answer;
    try {
      answer = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The studio does not answer; is it still running?");
    }
    if (answer.ok) return answer;
    if (answer.status !== 503 || attempt === ATTEMPTS) {
      const { error } = await answer.json().catch(() => ({}));
      throw new Refused(error || `The studio answered ${answer.status}.`);
    }
    const seconds = Number(answer.headers.get("retry-after")) || 1;
    await new Promise((done) => setTimeout(done, 1000 * seconds));
  }
}

export async function get(path, query = {}, signal = undefined) {
  const fields = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== undefined && one !== null && one !== "") fields.append(name, one);
  }
  const answer = await send(`api/${path}${fields.size ? `?${fields}` : ""}`, { signal });
  return answer.json();
}

function request(content) {
  if (content instanceof FormData) return { method: "POST", body: content };
  return { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(content) };
}

export async function post(path, content, signal = undefined) {
  return (await send(`api/${path}`, { ...request(content), signal })).json();
}

export function form(fields) {
  const content = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value !== undefined && value !== null) content.append(name, value);
  return content;
}

// Have the browser store what a call returns as a file.
export async function download(path, content, name) {
  const blob = await (await send(`api/${path}`, request(content))).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
