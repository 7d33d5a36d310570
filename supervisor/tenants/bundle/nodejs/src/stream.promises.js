// node:stream/promises, of the npm package.

import npm from "readable-stream/lib/stream/promises.js";

export const { finished, pipeline } = npm;
export default npm;
