export const title = "Grid"; export const lede = "";
export function mount() {}
