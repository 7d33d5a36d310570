// Pipes a file of an upstream to the client.
export default { fetch(request) {
	const url = new URL(request.url).searchParams;
	return fetch(url.get("up") + "/bytes?n=" + url.get("n"));
} };
