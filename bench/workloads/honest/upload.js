// Takes a file piece by piece, and counts.
export default { async fetch(request) {
	let bytes = 0, sum = 0;
	for await (const piece of request.body) { bytes += piece.byteLength; sum = (sum + piece[0]) % 65521; }
	return new Response(`${bytes} ${sum}`);
} };
