// Package runtime is what tenant code sees: the web platform in JavaScript (js/, embedded) and the few
// operations behind it that are done in Go.
//
// Duty: Source is one script that, called with the engine's host object, defines the globals and
// returns the handlers the engine calls, one per event of an isolate. Do performs the asynchronous
// operations the script asks for.
//
// Trust: the script runs in the tenant's isolate and protects the tenant from surprises, not the host
// from the tenant. It captures every intrinsic it needs before tenant code runs, so that patched
// prototypes change nothing it does; still, nothing it says is believed by anyone outside the isolate.
// The arguments of Do are the tenant's and are checked here.
//
// Invariants: each invocation ends with exactly one call of host.finish; a body chunk is never larger
// than limits.Wire.ChunkBytes and never beyond the window; timers fire in order of nominal due time;
// no clock but the host's frozen one exists; rarely used classes cost nothing until they are named.
//
// The handlers, each a turn followed by a microtask checkpoint and idle():
//
//	start()                        define the globals; before the tenant's modules are evaluated
//	load(namespace, env)           find the tenant's handlers; returns their event names
//	request(inv, method, url, headers, bodyMode, body, requestId, attempt)
//	chunk(inv, bytes) end(inv) abort(inv, reason, message) window(inv, n)
//	timer(nowMs)                   fire one due timer; true if another is due
//	op(id, ok, meta, bytes)        answer to host.op
//	rejection(kind, promise, reason, context)
//	idle()                         end of the turn: one task, or finish, detect what can never settle, set the
//	                               timer; true: call it again, after microtasks
//	describeError(error)           text for people
//	builtin(name)                  exports of a module of the runtime's own ("node:async_hooks"), or undefined
//
// A subrequest's id has the highest bit set. op then brings its head or its failure, chunk and end the
// response's body, abort a failure of it, window room for the request's; host.chunk, end, abort, credit
// and refuse take it likewise, refuse for "nothing more of it".
//
// Header blocks are "name\nvalue\n" repeated, one character a byte.
package runtime
