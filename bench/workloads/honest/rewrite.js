// Rewrites the links of an upstream's page.
export default { async fetch(request) {
	const up = new URL(request.url).searchParams.get("up");
	return new HTMLRewriter()
		.on("a", { element(e) { e.setAttribute("href", "/out?to=" + encodeURIComponent(e.getAttribute("href") ?? "")); } })
		.on("title", { element(e) { e.append(" (rewritten)"); } })
		.transform(await fetch(up + "/html"));
} };
