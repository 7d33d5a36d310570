import { WorkerEntrypoint } from "cloudflare:workers";
export default class extends WorkerEntrypoint {
	fetch() { return new Response("back"); }
	user(id) { return { id, name: "user " + id }; }
	orders(id) { return Array.from({ length: 10 }, (_, i) => ({ id: id * 100 + i, price: i * 3 })); }
	friends(id) { return [id + 1, id + 2]; }
}
