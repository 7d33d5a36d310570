// Tidies up every minute; says how often.
let runs = 0, kept = [];
export default {
	async scheduled() {
		for (let i = 0; i < 20; i++) {
			kept = Array.from({ length: 5000 }, (_, n) => n * i).filter((n) => n % 3);
			await scheduler.wait(20);
		}
		runs++;
	},
	fetch() { return new Response(String(runs)); },
};
