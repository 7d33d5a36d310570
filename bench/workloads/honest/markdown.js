// Renders Markdown.
export default { async fetch(request) {
	const text = await request.text();
	const html = text.split(/\n\n+/).map((p) => p.startsWith("# ") ? `<h1>${p.slice(2)}</h1>`
		: `<p>${p.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/\*\*(.+?)\*\*/g, "<b>$1</b>").replace(/`(.+?)`/g, "<code>$1</code>")}</p>`).join("\n");
	return new Response(html, { headers: { "content-type": "text/html" } });
} };
