export const title = "Dataset"; export const lede = "";
export function mount() {}
