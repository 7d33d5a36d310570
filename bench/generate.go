package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generateWorker writes a worker of about this many bytes that looks like a bundled application:
// classes, tables, templates and helpers, all reachable from fetch, so that no bundler drops them.
// Different seeds give different code: one's compiled form is of no use to another. It answers "ok\n"
// to every path but those of its handlers.
func generateWorker(size int, seed uint64) string {
	rng := rand.New(rand.NewPCG(seed, 11))
	var s strings.Builder
	fmt.Fprintf(&s, "// worker %d\nconst handlers = {};\n", seed)
	for i := 0; s.Len() < size-120; i++ {
		n := rng.IntN(1 << 20)
		fmt.Fprintf(&s, `
class Model%[1]d {
  static fields = ["id", "name%[2]d", "created", "owner%[1]d"];
  constructor(row) { this.id = row.id ?? %[2]d; this.name = String(row["name%[2]d"] ?? "none"); this.tags = new Set(row.tags ?? []); }
  validate() {
    const errors = [];
    if (!Number.isInteger(this.id) || this.id < %[3]d) errors.push("id %[2]d is out of range");
    for (const tag of this.tags) if (!/^[a-z]{%[4]d,32}$/.test(tag)) errors.push("tag " + tag + " is malformed");
    return errors.length ? { ok: false, errors } : { ok: true };
  }
  render(t) { return "<li class=\"m%[1]d\" data-id=\"" + this.id + "\">" + t("item.%[2]d", { name: this.name }) + "</li>"; }
}
handlers["/api/%[2]d/%[1]d"] = async function handle%[1]d(request, env) {
  const url = new URL(request.url);
  const page = Math.max(1, Number(url.searchParams.get("page%[3]d") ?? 1) | 0);
  const rows = Array.from({ length: %[5]d }, (_, k) => ({ id: k * page + %[3]d, "name%[2]d": "row " + k, tags: ["a" + k] }));
  const models = rows.map((row) => new Model%[1]d(row)).filter((m) => m.validate().ok);
  switch (request.headers.get("accept")) {
    case "application/json": return Response.json({ page, models, total: models.length * %[4]d });
    default: return new Response(models.map((m) => m.render((key, v) => key + ":" + v.name)).join(""), { headers: { "x-page": String(page) } });
  }
};
`, i, n, n%977, n%7+1, n%40+5)
	}
	s.WriteString("\nexport default {\n  async fetch(request, env) {\n    const handler = handlers[new URL(request.url).pathname];\n    return handler ? handler(request, env) : new Response(\"ok\\n\");\n  },\n};\n")
	return s.String()
}
