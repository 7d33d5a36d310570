// A long table, made with a template.
export default { fetch() {
	let rows = "";
	for (let i = 0; i < 3000; i++) rows += `<tr><td>${i}</td><td>${(i * i) % 977}</td><td>${String(i).split("").reverse().join("")}</td></tr>`;
	return new Response(`<table>${rows}</table>`, { headers: { "content-type": "text/html" } });
} };
