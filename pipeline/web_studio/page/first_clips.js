// What a page shows before anything was chosen: clips of different identities and actions, or samples.

import { get } from "./api.js";

export async function firstClips(model, count = 2) {
  const samples = Array.from({ length: count }, (_, number) => `sample:${number + 1}`);
  if (!model.collections.length) return samples;
  const { clips } = await get("clips", { kind: model.collections[0].kind, limit: 48 });
  const found = [];
  for (const clip of clips) {
    const isNew = found.every((other) => other.identity !== clip.identity && (other.labels.action ?? 0) !== (clip.labels.action ?? 1));
    if (isNew) found.push(clip);
    if (found.length === count) break;
  }
  return [...found.map((clip) => clip.of), ...samples].slice(0, count);
}
