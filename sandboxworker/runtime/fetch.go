package runtime

import (
	"errors"
	"strconv"
	"strings"
)

// FetchID marks the ids of subrequests.
const FetchID uint32 = 1 << 31

// FetchRequest is what an OpFetch asks for, as the script says: unchecked but for its form.
type FetchRequest struct {
	Method, URL string
	Redirect    uint16 // a gen.Fetch_Redirect
	BodyMode    uint16 // a gen.BodyMode
	Binding     uint16 // 0, the number of a service binding, or ipc.CacheBinding
	Call        string // the RPC method asked of it
	Function    uint16 // instead, with ipc.FunctionBinding: the function asked for
	Upgrade     bool   // a WebSocket is asked for
	Headers     []byte // flat
}

const functionBinding = 65534 // ipc.FunctionBinding

var errFetchForm = errors.New("malformed subrequest")

// ParseFetch reads the meta of an OpFetch: method, URL, redirect mode, body mode, binding,
// call (of a function, its number) and whether a WebSocket is asked for, each with a line feed behind it, then the header block.
func ParseFetch(meta string) (FetchRequest, error) {
	var f FetchRequest
	var redirect, mode, binding, upgrade string
	rest := meta
	for _, field := range []*string{&f.Method, &f.URL, &redirect, &mode, &binding, &f.Call, &upgrade} {
		var ok bool
		if *field, rest, ok = strings.Cut(rest, "\n"); !ok {
			return f, errFetchForm
		}
	}
	r, err1 := strconv.ParseUint(redirect, 10, 8)
	m, err2 := strconv.ParseUint(mode, 10, 8)
	n, err3 := strconv.ParseUint(binding, 10, 16)
	if err1 != nil || err2 != nil || err3 != nil {
		return f, errFetchForm
	}
	if n == functionBinding {
		k, err := strconv.ParseUint(f.Call, 10, 16)
		if err != nil || k == 0 {
			return f, errFetchForm
		}
		f.Call, f.Function = "", uint16(k)
	}
	f.Upgrade = upgrade == "1"
	f.Redirect, f.BodyMode, f.Binding = uint16(r), uint16(m), uint16(n)
	f.Headers = make([]byte, 0, len(rest))
	for _, c := range rest {
		if c > 0xff {
			return f, errFetchForm
		}
		f.Headers = append(f.Headers, byte(c))
	}
	return f, nil
}

// ServiceValue is the value of an env variable, given as JSON, that stands for a service binding. No
// JSON begins with that character.
func ServiceValue(binding uint16) string { return "\x01" + strconv.Itoa(int(binding)) }

// EventMethod is the method under which the script is given an invocation that is not the default
// export's fetch: no HTTP method holds a line feed. The binding's props may follow, after another one.
func EventMethod(method, event, entrypoint, name string) string {
	return method + "\n" + event + "\n" + entrypoint + "\n" + name
}

// FetchAnswer is the head of a response to a subrequest.
type FetchAnswer struct {
	Status     int
	StatusText string
	URL        string
	Redirected bool
	Body       bool   // it has one, perhaps empty
	Headers    []byte // flat
}

// Meta is the form in which the script takes it: status, reason phrase, URL, redirected and body, each
// with a line feed behind it, then the header block.
func (a *FetchAnswer) Meta() string {
	var b strings.Builder
	b.Grow(len(a.Headers) + len(a.URL) + len(a.StatusText) + 16)
	flag := func(v bool) string {
		if v {
			return "1\n"
		}
		return "0\n"
	}
	b.WriteString(strconv.Itoa(a.Status))
	b.WriteByte('\n')
	latin1(&b, a.StatusText)
	b.WriteByte('\n')
	latin1(&b, a.URL)
	b.WriteByte('\n')
	b.WriteString(flag(a.Redirected))
	b.WriteString(flag(a.Body))
	latin1(&b, string(a.Headers))
	return b.String()
}

// latin1 writes each byte as the character of its number: what a byte string is in JavaScript.
func latin1(b *strings.Builder, s string) {
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
}
