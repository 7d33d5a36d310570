package runtime

import (
	"embed"
	"strings"
)

//go:embed js
var files embed.FS

// A unit is a group of files that share one scope. Those of a lazy unit run on first use; the last
// one returns what others may take. The order is the order of evaluation.
type unit struct {
	name  string // constant that holds the lazy unit; empty: runs at once
	files []string
}

// units lists every file of js/ once. A lazy unit must come before eager code that runs at once and
// names it; functions may name anything.
var units = []unit{
	{"", []string{
		"core/primordials.js", "core/resizable.js", "core/fifo.js", "core/webidl.js", "core/domexception.js", "core/report.js",
		"encoding/base64.js", "rpc/captures.js",
	}},
	{"eventsUnit", []string{"events/event.js", "events/target.js", "events/abort.js", "events/exports.js"}},
	{"cloneUnit", []string{"scope/clone.js"}},
	{"messageUnit", []string{"events/message.js"}},
	{"urlUnit", []string{"url/searchparams.js", "url/url.js"}},
	{"urlPatternUnit", []string{"url/pattern.js"}},
	{"legacyUnit", []string{"encoding/legacy.js"}},
	{"encodingUnit", []string{"encoding/text.js"}},
	{"streamsUnit", []string{
		"streams/queue.js", "streams/readable.js", "streams/readers.js", "streams/default_controller.js",
		"streams/byte_controller.js", "streams/byte_classes.js", "streams/tee.js", "streams/pipe.js",
		"streams/writable.js", "streams/writer.js", "streams/transform.js", "streams/text.js", "streams/transfer.js", "streams/exports.js",
	}},
	{"compressUnit", []string{"streams/compress.js"}},
	{"mimeUnit", []string{"fetch/mime.js"}},
	{"dataUnit", []string{"fetch/data.js"}},
	{"blobUnit", []string{"fetch/blob.js", "fetch/formdata.js", "fetch/multipart.js"}},
	{"blobURLUnit", []string{"fetch/bloburl.js"}},
	{"readerUnit", []string{"fetch/reader.js"}},
	{"inspectUnit", []string{"console/inspect.js", "console/describe.js"}},
	{"consoleUnit", []string{"console/console.js"}},
	{"cryptoUnit", []string{"crypto/crypto.js", "crypto/algorithms.js", "crypto/keys.js", "crypto/subtle.js"}},
	{"rewriterUnit", []string{"html/selector.js", "html/tokens.js", "html/rewriter.js"}},
	{"asyncHooksUnit", []string{"node/async_hooks.js"}},
	{"nodeEnvUnit", []string{"node/env.js"}},
	{"fetchUnit", []string{"fetch/subrequest.js"}},
	{"eventHandlersUnit", []string{"invoke/scheduled.js"}},
	{"cacheUnit", []string{"cache/cache.js"}},
	{"socketUnit", []string{"socket/websocket.js"}},
	{"rpcUnit", []string{"rpc/codec.js", "rpc/service.js", "rpc/function.js", "rpc/entrypoint.js"}},
	{"", []string{
		"fetch/headers.js", "fetch/body.js", "fetch/request.js", "fetch/response.js", "fetch/fetch.js",
		"scope/timers.js", "scope/performance.js", "invoke/ops.js", "invoke/wirebody.js", "invoke/pump.js",
		"invoke/invocation.js", "fetch/wasm.js", "node/builtin.js", "scope/globals.js", "invoke/handlers.js",
	}},
}

// Source returns the runtime as one classic script. Its completion value is a function that takes the
// host object and returns the handlers (see the package comment). It is pure ASCII, so that V8 can use
// it as an external one-byte string shared by all isolates.
func Source() []byte {
	var b strings.Builder
	b.WriteString("(function (host) {\n\"use strict\";\n")
	for _, u := range units {
		if u.name != "" {
			b.WriteString("const " + u.name + " = new Unit(() => {\n")
		}
		for _, f := range u.files {
			src, err := files.ReadFile("js/" + f)
			if err != nil {
				panic("BUG: runtime source " + f + " is not embedded: " + err.Error())
			}
			b.WriteString("// ---- " + f + "\n")
			b.Write(src)
		}
		if u.name != "" {
			b.WriteString("});\n")
		}
	}
	b.WriteString("return handlers;\n})\n")
	return []byte(b.String())
}
