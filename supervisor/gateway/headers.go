package gateway

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"bulkhead/ipc"
)

// Names that are bulkhead's own on the wire. Clients and tenants can set none that begins so.
const (
	ownPrefix       = "Bulkhead-"
	headerRequestID = "Bulkhead-Request-Id"
	headerOutcome   = "Bulkhead-Outcome"
)

// hopByHop says whether a field, by its canonical name, concerns one connection only (RFC 9110
// §7.6.1), or is answered by the gateway itself, and so never crosses it.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Expect":
		return true
	}
	return false
}

// named says whether the values of a Connection field name this field. name is canonical.
func named(connection []string, name string) bool {
	for _, v := range connection {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), name) {
				return true
			}
		}
	}
	return false
}

// appendRequestHeaders flattens a request's fields for schema Open.headers. The strict reader has
// checked names and values, and kept count and bytes within limits.Wire.
func appendRequestHeaders(dst []byte, r *http.Request) []byte {
	dst = ipc.AppendHeader(dst, "host", r.Host)
	connection := r.Header["Connection"]
	for name, values := range r.Header {
		if hopByHop(name) || strings.HasPrefix(name, ownPrefix) {
			continue
		}
		if len(connection) > 0 && named(connection, name) {
			continue
		}
		for _, v := range values {
			for i := range len(name) {
				c := name[i]
				if 'A' <= c && c <= 'Z' {
					c |= 0x20
				}
				dst = append(dst, c)
			}
			dst = append(dst, '\n')
			dst = append(dst, v...)
			dst = append(dst, '\n')
		}
	}
	return dst
}

// setResponseHeaders copies a shard's flattened fields into h, which net/http then writes. It
// returns the Content-Length that the worker set, or -1 if it set none that can be believed.
func setResponseHeaders(h http.Header, flat []byte) (length int64) {
	// One copy for all names and values: the shard's buffer is not ours to keep.
	all := string(flat)
	n := strings.Count(all, "\n") / 2
	values := make([]string, 0, n)
	length = -1
	lengths := 0
	var connection []string
	for rest := all; rest != ""; {
		name, tail, ok := strings.Cut(rest, "\n")
		if !ok {
			break
		}
		value, next, ok := strings.Cut(tail, "\n")
		if !ok {
			break
		}
		rest = next
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case name == "Content-Length":
			lengths++
			if n, ok := decimal([]byte(value)); ok && lengths == 1 {
				length = n
			} else {
				length = -1
			}
			continue
		case name == "Connection":
			connection = append(connection, value)
			continue
		case hopByHop(name) || strings.HasPrefix(name, ownPrefix):
			continue
		case strings.ContainsFunc(value, control):
			continue // JavaScript may set it, RFC 9110 §5.5 has no such value, and fronts differ on it
		}
		if old, ok := h[name]; ok {
			h[name] = append(old, value)
			continue
		}
		values = append(values, value)
		// The capacity ends where the value does: appending to it cannot reach the next field's.
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	for name := range h {
		if len(connection) > 0 && named(connection, name) && name != headerRequestID {
			delete(h, name)
		}
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // keeps net/http from guessing: the worker said none
	}
	return length
}

func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// requestURL builds the absolute URL as the client named it. buf is scratch space.
func requestURL(buf []byte, r *http.Request, scheme string) []byte {
	target := r.RequestURI
	if target == "" || target[0] != '/' {
		if target == "*" {
			target = "/*" // only OPTIONS; WHATWG URLs cannot say "*"
		} else {
			// Absolute form. Its authority equals Host (strict.go).
			_, after, _ := strings.Cut(target, "://")
			if i := strings.IndexAny(after, "/?"); i < 0 {
				target = "/"
			} else if target = after[i:]; target[0] == '?' {
				buf = append(append(append(append(buf, scheme...), "://"...), r.Host...), '/')
				return appendTarget(buf, target)
			}
		}
	}
	buf = append(append(append(buf, scheme...), "://"...), r.Host...)
	return appendTarget(buf, target)
}

// appendTarget appends a path and query, percent-encoding bytes beyond ASCII: browsers never send
// them raw, curl does, and a shard must get text.
func appendTarget(buf []byte, target string) []byte {
	for i := range len(target) {
		if target[i] >= 0x80 {
			return appendEscaped(append(buf, target[:i]...), target[i:])
		}
	}
	return append(buf, target...)
}

func appendEscaped(buf []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; c >= 0x80 {
			buf = append(buf, '%', hex[c>>4], hex[c&15])
		} else {
			buf = append(buf, c)
		}
	}
	return buf
}

// plainHost says whether a Host value is a name or address with an optional port, nothing that a
// URL parser would read as more than an authority.
func plainHost(host string) bool {
	if host == "" {
		return false
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 && host[len(host)-1] != ']' {
		port := host[i+1:]
		if _, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || len(port) > 5) {
			return false
		}
		host = host[:i]
	}
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
		for _, c := range []byte(host) {
			if hexDigit[c] == 0 && c != ':' && c != '.' {
				return false
			}
		}
		return true
	}
	if host == "" || len(host) > 253 {
		return false
	}
	for _, c := range []byte(host) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}
