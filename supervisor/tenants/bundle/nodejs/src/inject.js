// The globals of Node.js that the packages of package.json take for granted.

export { default as process } from "./process.js";
