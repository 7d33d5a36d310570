package main

import "time"

// decoder is a row of the table: a fuzzer, what it feeds, and who writes the bytes.
type decoder struct {
	pkg, fuzz string // package within the module, and the fuzzer in it
	reads     string // what is decoded
	from      string // whose bytes they are
	slow      bool   // thousands of executions a second instead of tens of thousands; run last
}

// decoders is every decoder that reads bytes of somebody who is not trusted. A test holds it against
// the fuzzers in the tree, both ways, and against the corpora.
//
// Not here, because the code is not ours and runs behind a seal: esbuild (in the bundler) and V8. The
// JavaScript engine's own readers of a tenant's words are those of sandboxworker/runtime below.
func decoders() []decoder {
	return []decoder{
		{"ipc", "FuzzBlackBox", "the black box of a dead worker", "shard", false},
		{"ipc", "FuzzHeaders", "flattened header fields", "shard", false},
		{"ipc", "FuzzFetchCheck", "fetch frames: method, URL, fields, modes", "shard", false},
		{"ipc", "FuzzScanner", "data frames: framing and every kind of frame", "shard", false},
		{"ipc", "FuzzControlCodec", "RPC messages: framing, segments, traversal", "shard", false},
		{"ipc/gatewayside", "FuzzGuard", "RPC messages: what a shard may say", "shard", false},
		{"ipc/gatewayside", "FuzzAnswers", "load, stats, codeCache answers; log entries", "shard", false},
		{"ipc/gatewayside", "FuzzFrames", "sequences of frames against stream and fetch state", "shard", false},
		{"ipc/gatewayside", "FuzzMessages", "WebSocket messages of a shard", "shard", false},
		{"supervisor/placement", "FuzzLastWords", "standard error and last words of a worker", "shard", false},
		{"supervisor/placement", "FuzzBlame", "the black box as evidence", "shard", false},
		{"supervisor/placement", "FuzzLogTime", "times of log lines", "shard", false},
		{"supervisor/observe", "FuzzPeople", "log lines for a terminal", "shard, tenant, client", false},
		{"supervisor/gateway", "FuzzStrictReaderAgreesWithNetHTTP", "HTTP/1.1 requests: heads, chunks, trailers", "client", false},
		{"supervisor/socket", "FuzzGate", "WebSocket frames of clients and upstreams", "client, upstream", false},
		{"supervisor/socket", "FuzzUTF8InParts", "text messages in fragments", "client, upstream", false},
		{"supervisor/gateway", "FuzzRequest", "request heads into open frames", "client", false},
		{"supervisor/gateway", "FuzzResponseHeaders", "response fields into HTTP", "shard", false},
		{"supervisor/gateway", "FuzzAdmin", "the operators' API", "operator", false},
		{"supervisor/egress", "FuzzUpstream", "HTTP responses: heads, chunks, codings", "upstream", false},
		{"supervisor/egress", "FuzzCodings", "gzip, deflate, br, zstd on top of each other", "upstream", false},
		{"supervisor/egress", "FuzzURL", "URLs of fetches and redirects", "shard, upstream", false},
		{"supervisor/cache", "FuzzOperations", "operations of the Cache API: orders, fields, Cache-Control, Vary", "shard", false},
		{"policy/egress", "FuzzPattern", "patterns of egress rules, host names", "operator, shard", false},
		{"policy/egress", "FuzzAddress", "addresses against egress rules", "upstream (DNS)", false},
		{"policy", "FuzzParse", "the policy document", "operator", false},
		{"policy/cron", "FuzzParse", "cron expressions", "tenant", false},
		{"policy/suspicion", "FuzzSimulate", "recorded events for policy simulate", "operator", false},
		{"policy/doctree", "FuzzJSON", "JSON with comments", "tenant", false},
		{"policy/doctree", "FuzzTOML", "TOML", "tenant", false},
		{"policy/doctree", "FuzzYAML", "YAML", "tenant, operator", false},
		{"supervisor/tenants/manifest", "FuzzRead", "bulkhead.yaml, wrangler.toml, wrangler.jsonc", "tenant", false},
		{"supervisor/tenants/manifest", "FuzzRoute", "routes", "tenant", false},
		{"supervisor/tenants", "FuzzPlain", "files that are served without a bundler", "tenant", false},
		{"supervisor/tenants", "FuzzDecodeResult", "the sealed bundler's result", "bundler", false},
		{"supervisor/tenants", "FuzzSourceMap", "source maps, and stacks to be mapped", "bundler, shard", false},
		{"supervisor/tenants", "FuzzUnpack", "bundles kept in the data folder", "disk", false},
		{"supervisor/launcher/orders", "FuzzDecodeOrder", "orders to the launcher", "gateway", false},
		{"supervisor/launcher/orders", "FuzzDecodeReport", "reports to the gateway", "launcher", false},
		{"supervisor/launcher/orders", "FuzzDecodeBoot", "what a gateway is started with", "launcher", false},
		{"supervisor/launcher", "FuzzKernelLog", "audit records of the kernel log", "kernel", false},
		{"sandboxworker/runtime", "FuzzDo", "operations of the runtime", "tenant", false},
		{"sandboxworker/runtime", "FuzzParseFetch", "fetch() of the runtime", "tenant", false},
		{"sandboxworker/runtime", "FuzzServiceMessage", "arguments and results of calls between workers", "shard", true},
		{"supervisor/launcher", "FuzzProc", "/proc of a process that may name itself anything", "worker", true},
		{"ipc/gatewayside", "FuzzShardBytes", "the whole data channel, however its bytes are cut", "shard", true},
		{"ipc/gatewayside", "FuzzControlBytes", "the whole control channel, while answers of every kind are awaited", "shard", true},
	}
}

// result of one decoder's run.
type result struct {
	decoder
	execs, interesting, corpus int
	took                       time.Duration
	err                        error
	crasher                    string // the file that Go wrote the failing input to
}
