// node:path/posix, which is what node:path is here.

export * from "./path.js";
export { default } from "./path.js";
