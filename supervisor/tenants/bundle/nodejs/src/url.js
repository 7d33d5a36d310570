// node:url: the old functions of the npm package, the global classes, and what leads to files.

import npm from "url/";

export const { URL, URLSearchParams, URLPattern } = globalThis;
export const { parse, resolve, resolveObject, Url } = npm;
export const format = (url, options = undefined) => {
  if (!(url instanceof URL)) return npm.format(url);
  const out = new URL(url);
  if (options?.auth === false) out.username = out.password = "";
  if (options?.fragment === false) out.hash = "";
  if (options?.search === false) out.search = "";
  return out.href;
};
export const fileURLToPath = (url) => {
  const u = typeof url === "string" ? new URL(url) : url;
  if (u.protocol !== "file:") throw new TypeError("The URL must be of scheme file");
  if (u.hostname !== "") throw new TypeError('File URL host must be "localhost" or empty');
  if (/%2f/i.test(u.pathname)) throw new TypeError("File URL path must not include encoded / characters");
  return decodeURIComponent(u.pathname);
};
export const pathToFileURL = (path) => {
  const u = new URL("file:///");
  u.pathname = String(path).replaceAll("%", "%25").replaceAll("\\", "%5C").replaceAll("\n", "%0A").replaceAll("\r", "%0D").replaceAll("\t", "%09");
  return u;
};
// A host name as a URL writes it; empty if it is none.
export const domainToASCII = (domain) => {
  try { return new URL(`ws://${domain}`).hostname; } catch { return ""; }
};
export const urlToHttpOptions = (url) => ({
  protocol: url.protocol,
  hostname: url.hostname.startsWith("[") ? url.hostname.slice(1, -1) : url.hostname,
  hash: url.hash, search: url.search, pathname: url.pathname, path: `${url.pathname}${url.search}`, href: url.href,
  ...(url.port === "" ? {} : { port: Number(url.port) }),
  ...(url.username || url.password ? { auth: `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}` } : {}),
});
export default { URL, URLSearchParams, URLPattern, parse, resolve, resolveObject, Url, format, fileURLToPath, pathToFileURL, domainToASCII, urlToHttpOptions };
