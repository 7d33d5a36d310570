// Calls another worker's methods.
export default { async fetch(request, env) {
	const user = await env.BACK.user(7);
	const [orders, friends] = await Promise.all([env.BACK.orders(user.id), env.BACK.friends(user.id)]);
	return Response.json({ user, orders, friends });
} };
