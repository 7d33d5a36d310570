// The whole of a readable stream, as text.

export async function text(source) {
  let out = "";
  for await (const chunk of source) out += chunk;
  return out;
}
