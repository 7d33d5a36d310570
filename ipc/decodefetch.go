package ipc

import (
	"strings"

	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// CacheBinding is the number of a binding that every tenant has: its own caches (see schema/frame.capnp,
// Fetch.binding). Real ones are fewer.
const CacheBinding = 65535

// FunctionBinding is the number of the binding that stands for the functions in a call's arguments (see
// schema/frame.capnp, Fetch.function).
const FunctionBinding = 65534

// FetchBit marks the stream ids that a shard chooses: those of subrequests.
const FetchBit uint64 = 1 << 63

// DecodeFetch reads a fetch frame and checks it as Fetch.Check does. Strings and slices of the
// result point into the frame.
func DecodeFetch(f gen.Frame, w *limits.Wire) (Fetch, error) {
	id := f.Stream()
	if id&FetchBit == 0 {
		return Fetch{}, Violation(KindStream, id, "a fetch frame with an id of the gateway's")
	}
	p, err := f.Fetch()
	if err != nil || !p.IsValid() {
		return Fetch{}, Violation(KindEncoding, id, "fetch frame without its struct")
	}
	r := Fetch{Parent: p.Parent(), BodyMode: p.BodyMode(), Redirect: p.Redirect(), Binding: p.Binding(), Upgrade: p.Upgrade(), Function: p.Function()}
	var method, url, call []byte
	d := fieldReader{stream: id}
	d.data(&method, "method", maxMethodBytes, p.MethodBytes)
	d.data(&url, "url", w.URLBytes, p.UrlBytes)
	d.data(&r.Headers, "headers", w.HeaderBytes, p.Headers)
	d.data(&r.Body, "body", w.ChunkBytes, p.Body)
	d.data(&call, "call", MaxNameBytes, p.CallBytes)
	if d.err != nil {
		return Fetch{}, d.err
	}
	r.Method, r.URL, r.Call = viewString(method), viewString(url), viewString(call)
	return r, onStream(r.Check(w), id)
}

// Check says what of r may not be on the wire. The method is a token that Fetch does not forbid
// (https://fetch.spec.whatwg.org/#forbidden-method). The URL is absolute, http or https, printable
// ASCII, and has neither credentials nor a fragment; whether it names anything is for who dials to
// find out. A call is of a binding and names an identifier. The error is a *ViolationError without a
// stream.
func (r *Fetch) Check(w *limits.Wire) error {
	switch {
	case len(r.URL) > w.URLBytes:
		return Violation(KindSize, 0, "url of %d bytes, limit %d", len(r.URL), w.URLBytes)
	case len(r.Body) > w.ChunkBytes:
		return Violation(KindSize, 0, "body of %d bytes, limit %d", len(r.Body), w.ChunkBytes)
	case len(r.Method) > maxMethodBytes:
		return Violation(KindSize, 0, "method of %d bytes, limit %d", len(r.Method), maxMethodBytes)
	case r.BodyMode > gen.BodyMode_streamed:
		return Violation(KindEncoding, 0, "body mode %d", r.BodyMode)
	case r.Redirect > gen.Fetch_Redirect_manual:
		return Violation(KindEncoding, 0, "redirect mode %d", r.Redirect)
	case r.BodyMode == gen.BodyMode_none && len(r.Body) != 0:
		return Violation(KindState, 0, "a body in a request without one")
	case !fetchMethod(r.Method):
		return Violation(KindHeaders, 0, "a method that is no token or is not to be fetched with")
	case r.BodyMode != gen.BodyMode_none && (r.Method == "GET" || r.Method == "HEAD"):
		return Violation(KindState, 0, "a body of a %s request", r.Method)
	case r.Upgrade && (r.Method != "GET" || r.Binding != 0):
		return Violation(KindState, 0, "a WebSocket by %s, or of a binding", r.Method)
	case r.Binding == CacheBinding && (r.Call != "" || r.Method != "GET" && r.Method != "PUT" && r.Method != "DELETE"):
		return Violation(KindState, 0, "an operation that caches do not have")
	case (r.Binding == FunctionBinding) != (r.Function != 0):
		return Violation(KindState, 0, "a function without its binding, or the other way round")
	case r.Function != 0 && (r.Call != "" || r.Method != "POST" || r.BodyMode == gen.BodyMode_none):
		return Violation(KindState, 0, "a function called otherwise than with arguments")
	case r.Call != "" && r.Binding == 0:
		return Violation(KindState, 0, "a call of no binding")
	case r.Call != "" && (r.Method != "POST" || r.BodyMode == gen.BodyMode_none):
		return Violation(KindState, 0, "a call without arguments")
	case r.Call != "" && !Identifier(r.Call):
		return Violation(KindHeaders, 0, "a call of what is no identifier of at most %d bytes", MaxNameBytes)
	case !fetchURL(r.URL):
		return Violation(KindHeaders, 0, "a URL that is not to be fetched")
	}
	return CheckHeaders(r.Headers, w)
}

func fetchMethod(m string) bool {
	for _, c := range []byte(m) {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if !tokenLower[c] {
			return false
		}
	}
	for _, no := range []string{"CONNECT", "TRACE", "TRACK"} {
		if strings.EqualFold(m, no) {
			return false
		}
	}
	return m != ""
}

// Identifier says whether s can name an RPC method or an entrypoint: an ASCII identifier of JavaScript,
// at most MaxNameBytes long. Others exist; nobody needs them between tenants.
func Identifier(s string) bool {
	if s == "" || len(s) > MaxNameBytes || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '$':
		default:
			return false
		}
	}
	return true
}

func fetchURL(u string) bool {
	for _, c := range []byte(u) {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	rest, ok := strings.CutPrefix(u, "https://")
	if !ok {
		if rest, ok = strings.CutPrefix(u, "http://"); !ok {
			return false
		}
	}
	if i := strings.IndexAny(rest, `/?\`); i >= 0 {
		rest = rest[:i]
	}
	return rest != "" && !strings.Contains(rest, "@")
}

// DecodeAnswer reads the head frame that answers a subrequest: unlike a shard's head its status may
// be any that an upstream can send. Strings and slices point into the frame.
func DecodeAnswer(f gen.Frame, w *limits.Wire) (Head, error) {
	id := f.Stream()
	p, err := f.Head()
	if err != nil || !p.IsValid() {
		return Head{}, Violation(KindEncoding, id, "head frame without its struct")
	}
	h := Head{Status: p.Status(), BodyMode: p.BodyMode(), Redirected: p.Redirected()}
	var url, text []byte
	d := fieldReader{stream: id}
	d.data(&h.Headers, "headers", w.HeaderBytes, p.Headers)
	d.data(&h.Body, "body", w.ChunkBytes, p.Body)
	d.data(&url, "url", w.URLBytes, p.UrlBytes)
	d.data(&text, "status text", w.MessageBytes, p.StatusTextBytes)
	if d.err != nil {
		return Head{}, d.err
	}
	if h.BodyMode > gen.BodyMode_streamed {
		return Head{}, Violation(KindEncoding, id, "body mode %d", h.BodyMode)
	}
	h.URL, h.StatusText = viewString(url), viewString(text)
	return h, nil
}
