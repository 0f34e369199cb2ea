export const title = "Explore"; export const lede = "";
export function mount() {}
