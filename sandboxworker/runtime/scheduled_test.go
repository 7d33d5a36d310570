package runtime_test

import (
	"strings"
	"testing"

	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"
)

func TestTail(t *testing.T) {
	w := load(t, `export default { async tail(events, env, ctx) { await null; console.log(Array.isArray(events), events[0].scriptName, typeof ctx.waitUntil, env.A); } };`, engine.EnvVar{Name: "A", Value: "x"})
	event := engine.Request{Method: runtime.EventMethod("POST", "tail", "", ""), URL: "https://tail.invalid/", BodyMode: gen.BodyMode_whole, Body: []byte(`[{"scriptName":"b"}]`)}
	if a := w.do(event); a.finished != 1 || a.outcome != gen.Outcome_ok || len(w.logs) != 1 || !strings.Contains(w.logs[0], "true b function x") {
		t.Errorf("finished %d times, %v %s, logs %q", a.finished, a.outcome, a.message, w.logs)
	}
	event.Body = []byte("{")
	if a := w.do(event); a.finished != 1 || a.outcome != gen.Outcome_exception {
		t.Errorf("bad JSON: finished %d times, %v", a.finished, a.outcome)
	}
}

func TestScheduled(t *testing.T) {
	event := engine.Request{Method: runtime.EventMethod("POST", "scheduled", "", "*/5 * * * *"), URL: "https://scheduled.invalid/1700000000000"}
	for _, c := range []struct {
		name, code string
		outcome    gen.Outcome
		log        string
	}{
		{"an object", `export default { fetch() {}, async scheduled(event, env, ctx) { await null; console.log(event.type, event.cron, event.scheduledTime, typeof ctx.waitUntil, env.A); } };`, gen.Outcome_ok, "scheduled */5 * * * * 1700000000000 function x"},
		{"alone", `export default { scheduled(event) { console.log(event instanceof Object); } };`, gen.Outcome_ok, "true"},
		{"a class", entrypoints + `export default class extends WorkerEntrypoint { scheduled(event) { console.log(event.cron, this.env.A); } }`, gen.Outcome_ok, "*/5 * * * * x"},
		{"waits", `export default { async scheduled(e, env, ctx) { ctx.waitUntil(new Promise((r) => setTimeout(r, 10)).then(() => console.log("waited"))); } };`, gen.Outcome_ok, "waited"},
		{"throws", `export default { scheduled() { throw new Error("boom"); } };`, gen.Outcome_exception, "boom"},
		{"rejects", `export default { async scheduled() { await null; throw new Error("boom"); } };`, gen.Outcome_exception, "boom"},
		{"has none", `export default { fetch() {} };`, gen.Outcome_exception, "no scheduled() handler"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := load(t, c.code, engine.EnvVar{Name: "A", Value: "x"})
			a := w.do(event)
			if a.finished != 1 || a.outcome != c.outcome || !strings.Contains(strings.Join(w.logs, "\n"), c.log) {
				t.Errorf("finished %d times, %v %s, logs %q", a.finished, a.outcome, a.message, w.logs)
			}
			if c.outcome == gen.Outcome_ok && a.status != 204 {
				t.Errorf("status %d", a.status)
			}
		})
	}
}
