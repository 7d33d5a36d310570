// node:string_decoder, of the npm package.

import npm from "string_decoder/";

export const { StringDecoder } = npm;
export default npm;
