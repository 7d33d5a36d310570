package policy

import "bulkhead/policy/suspicion"

// described is what an editor shows of a key. Keys of classes, cordons and tenants have a prefix
// instead of their name; what a tenant may set means what it means for the host.
func described(key string) string {
	if s, ok := descriptions()[key]; ok {
		return s
	}
	for _, k := range suspicion.Kinds() {
		if key == "suspicion.weights."+k.Name {
			unit := k.Unit
			if unit == "" {
				unit = "occurrence"
			}
			return "points for each " + unit + ": " + k.Why
		}
	}
	const tenant = "tenant."
	if len(key) > len(tenant) && key[:len(tenant)] == tenant {
		return described(key[len(tenant):])
	}
	return ""
}

func descriptions() map[string]string {
	return map[string]string{
		"preset":           "the shipped policy that gives every value this document does not set",
		"profile":          "what native code a worker process may make: jitless (none, no Wasm), jit, jit+wasm",
		"calls":            "who may bind to whom as a service, beside what tenants' own folders say",
		"calls.from":       "tenant ids, or \"*\": who may call",
		"calls.to":         "tenant ids, or \"*\": who may be called",
		"tails":            "who receives the log and outcome events of whom",
		"tails.from":       "tenant ids, or \"*\": whose events",
		"tails.to":         "tenant ids: who receives them",
		"cache":            "what is kept for all tenants' Cache APIs together, in the gateway's memory; the tenant with most of it gives way first",
		"callDepth":        "invocations that one request may lead to in a row, its own included",
		"idleEvict":        "a tenant without a request for this long is unloaded",
		"forceMitigations": "force the processor's speculation mitigations in every process",
		"accept":           "protections of the kernel that may be missing on this host",
		"limits":           "what a tenant may use",
		"egress":           "what a tenant may reach outside",
		"shard":            "what one worker process may use",
		"placement":        "how tenants are spread over worker processes",
		"suspicion":        "when a tenant is put alone into its process, while it runs",
		"reshuffle":        "how often everybody's neighbours, memory and addresses change",
		"hostApis":         "web APIs of the platform itself, by name: rules permit them to tenants, whose workers call env.NAME.fetch()",
		"tenant.hostApis":  "host APIs that it may use; its folder asks for them under hostApis",
		"class":            "the class of shards of tenants that neither a rule nor their cordon gives one",
		"cordon":           "the level of trust of tenants that no rule gives one",

		"limits.cpu":          "processor time of one invocation; 4 ms more for each MiB of body moved",
		"limits.startupCpu":   "processor time of compiling and of the top level",
		"limits.wall":         "from a request's head to the end of its response",
		"limits.waitUntil":    "after the response, for ctx.waitUntil",
		"limits.memory":       "JavaScript heap, buffers and Wasm memories together",
		"limits.concurrent":   "invocations running or waiting at once",
		"limits.weight":       "share of the processors relative to other tenants",
		"limits.requestBody":  "body of one request",
		"limits.responseBody": "body of one response",
		"limits.headers":      "all header fields of a request or of a response",
		"limits.logBytes":     "log text of one invocation",
		"limits.timers":       "timers pending at once",
		"limits.pending":      "operations, subrequests and waitUntil promises pending at once",
		"limits.subrequests":  "fetch() calls of one invocation, redirects included",
		"limits.cacheEntries": "responses kept for caches.default and caches.open",
		"limits.cacheEntry":   "one of these responses, its header fields included",
		"limits.cacheBytes":   "all of them; the least recently used goes first. Memory of the gateway, see cache",
		"limits.scriptSize":   "the bundled code",
		"limits.eval":         "eval and new Function",
		"limits.wasm":         "WebAssembly; needs the profile jit+wasm",

		"egress.public":     "addresses that everybody on the internet can reach may be dialled",
		"egress.ports":      "ports of public addresses",
		"egress.allow":      "upstreams that may be reached besides: names, addresses, networks",
		"egress.deny":       "upstreams that may not be reached, whatever else is said; a tenant's list adds to the host's",
		"egress.internal":   "upstreams that are told by a header which tenant asks",
		"egress.safe":       "upstreams of which every request may be repeated",
		"egress.concurrent": "subrequests open at once",
		"egress.bytes":      "body of one subrequest, either way",

		"shard.memory":     "memory of one worker process",
		"shard.pids":       "threads of one worker process",
		"shard.cpuWeight":  "share of the processors relative to other processes (cgroup v2 cpu.weight)",
		"shard.files":      "descriptors of one worker process",
		"shard.maxTenants": "tenants in one worker process",

		"placement.spread": "processes that the tenants of one cordon and class are spread over before any gets a second tenant",

		"reshuffle.maxAge": "age at which a worker process is replaced and its tenants are spread at random over fresh ones",
		"reshuffle.grace":  "how long WebSockets of a tenant that is moved are let be before they are closed with 1012",
		"reshuffle.jitter": "per cent of maxAge that this may happen earlier, at random",

		"suspicion.enabled":  "act on what tenants are seen to do",
		"suspicion.watch":    "points from which a tenant is listed",
		"suspicion.isolate":  "points from which its neighbours are moved elsewhere",
		"suspicion.stop":     "points from which it is ended",
		"suspicion.halfLife": "time after which what was seen counts half",
		"suspicion.calm":     "time below watch after which an isolated tenant is released",
		"suspicion.every":    "how often tenants at work are looked at",
		"suspicion.record":   "write every observation to the event log, for bulkhead policy simulate",
		"suspicion.weights":  "points for each kind of observation",

		"hostApi.address":    "where it listens: unix:/PATH, or http://IP:PORT on this machine or a private network",
		"hostApi.concurrent": "requests of one tenant open at once",
		"hostApi.timeout":    "from a request's last byte to the head of its response",

		"class.profile":    "what native code processes of this class may make",
		"class.memory":     "memory of one process of this class",
		"class.maxTenants": "tenants in one process of this class",
		"class.maxAge":     "age at which a process of this class is replaced",
		"cordon.class":     "class of shards of its tenants that no rule gives another",
		"cordon.spread":    "processes that its tenants are spread over, instead of placement.spread",
	}
}
