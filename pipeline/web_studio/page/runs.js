export const title = "Runs"; export const lede = "";
export function mount() {}
