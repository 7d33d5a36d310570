// node:path, of the npm package. There is no node:path/win32.

import path from "path-browserify";

export const { basename, delimiter, dirname, extname, format, isAbsolute, join, normalize, parse, posix, relative, resolve, sep } = path;
export default path;
