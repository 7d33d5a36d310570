// Sessions by cookie.
const sessions = new Map();
export default { fetch(request) {
	const id = /sid=(\w+)/.exec(request.headers.get("cookie") ?? "")?.[1] ?? crypto.randomUUID().replaceAll("-", "");
	const s = sessions.get(id) ?? { visits: 0 };
	s.visits++;
	sessions.set(id, s);
	if (sessions.size > 500) sessions.delete(sessions.keys().next().value);
	return Response.json(s, { headers: { "set-cookie": `sid=${id}; HttpOnly` } });
} };
