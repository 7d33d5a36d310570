package gateway

import (
	"bytes"
	"net/http"
	"strings"

	"bulkhead/policy/limits"
)

// malformed is a refusal of the strict reader. Its text is ours, never the client's bytes.
type malformed struct {
	status  int
	message string
}

func (m *malformed) Error() string { return m.message }

func bad(message string) *malformed { return &malformed{http.StatusBadRequest, message} }

// strictReader follows one connection's HTTP/1.x messages, byte by byte but a line at a time, and
// refuses what RFC 9112 lets servers repair. A front that repairs and a back that does not is how
// requests are smuggled; bulkhead may stand behind any front, so it never repairs:
//
//   - Content-Length twice, even if equal; not digits; together with Transfer-Encoding (§6.1, §6.3)
//   - any Transfer-Encoding but one "chunked"; any at all in HTTP/1.0
//   - obsolete line folding (§5.2), lines ended by LF alone (§2.2), CR or NUL anywhere
//   - Host absent, twice, or different from an absolute request target (§3.2)
//   - a request target with a fragment, a space or a control character
//   - chunk sizes that are not plain hexadecimal, chunks without their CRLF (§7.1)
//
// net/http behind it parses the same bytes again. Should the two ever disagree about where a
// message ends, the reader sees body bytes as a head and refuses: the failure is closed.
type strictReader struct {
	wire *limits.Wire

	state readState
	line  []byte // the part of the current line that came with earlier reads
	left  uint64 // bytes of body or chunk still to come

	// Of the head being read:
	target      string // absolute request target's authority, "" otherwise
	host        string
	hosts       int
	length      int64 // -1: no Content-Length
	chunked     bool
	http10      bool
	fields      int
	fieldBytes  int
	extraBytes  int // chunk extensions and trailers of this message
	blankBefore bool
}

type readState uint8

const (
	readRequestLine readState = iota
	readFields
	readBody
	readChunkSize
	readChunk
	readChunkEnd
	readTrailers
)

const (
	// maxMethod is longer than any registered method.
	maxMethod = 32
	// maxExtra bounds chunk extensions and trailers of one message: nobody here reads them.
	maxExtra = 8 << 10
)

// feed takes the next bytes of the connection. It returns how many of them are good; fewer than
// all only together with a refusal. Good bytes never hold the end of a refused line.
func (s *strictReader) feed(p []byte) (int, *malformed) {
	for n := 0; n < len(p); {
		switch s.state {
		case readBody, readChunk:
			take := min(uint64(len(p)-n), s.left)
			n += int(take)
			s.left -= take
			if s.left > 0 {
				continue
			}
			if s.state == readBody {
				s.state = readRequestLine
			} else {
				s.state = readChunkEnd
			}
		default:
			i := bytes.IndexByte(p[n:], '\n')
			if i < 0 {
				s.line = append(s.line, p[n:]...)
				if m := s.lineLimit(len(s.line)); m != nil {
					return n, m
				}
				return len(p), nil
			}
			line := p[n : n+i+1]
			if len(s.line) > 0 {
				s.line = append(s.line, line...)
				line = s.line
			}
			m := s.lineLimit(len(line) - 2)
			if m == nil {
				m = s.take(line)
			}
			s.line = s.line[:0]
			if m != nil {
				return n, m
			}
			n += i + 1
		}
	}
	return len(p), nil
}

// lineLimit says whether a line of n bytes, or its beginning, is already too long.
func (s *strictReader) lineLimit(n int) *malformed {
	switch s.state {
	case readRequestLine:
		if n > s.wire.URLBytes+maxMethod+len("  HTTP/1.1") {
			return &malformed{http.StatusRequestURITooLong, "the request target is too long"}
		}
	case readFields:
		if s.fieldBytes+n > s.wire.HeaderBytes {
			return &malformed{http.StatusRequestHeaderFieldsTooLarge, "the header fields are too large"}
		}
	default:
		if s.extraBytes+n > maxExtra {
			return bad("too many bytes of chunk extensions or trailer fields")
		}
	}
	return nil
}

// take judges one whole line, its LF included.
func (s *strictReader) take(line []byte) *malformed {
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return bad("a line does not end with CR LF")
	}
	line = line[:len(line)-2]
	switch s.state {
	case readRequestLine:
		return s.requestLine(line)
	case readFields:
		if len(line) == 0 {
			return s.endOfHead()
		}
		return s.field(line)
	case readChunkSize:
		return s.chunkSize(line)
	case readChunkEnd:
		if len(line) != 0 {
			return bad("a chunk is longer than its size says")
		}
		s.state = readChunkSize
	case readTrailers:
		if len(line) == 0 {
			s.state = readRequestLine
			return nil
		}
		s.extraBytes += len(line)
		_, _, m := splitField(line)
		return m
	}
	return nil
}

func (s *strictReader) requestLine(line []byte) *malformed {
	if len(line) == 0 && !s.blankBefore {
		s.blankBefore = true // §2.2: one empty line before a request may be ignored; net/http decides
		return nil
	}
	i := bytes.IndexByte(line, ' ')
	j := bytes.LastIndexByte(line, ' ')
	if i <= 0 || j <= i+1 {
		return bad("the request line is not METHOD TARGET VERSION")
	}
	method, target, version := line[:i], line[i+1:j], line[j+1:]
	*s = strictReader{wire: s.wire, line: s.line, state: readFields, length: -1}
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		s.http10 = true
	default:
		if bytes.HasPrefix(version, []byte("HTTP/")) {
			return &malformed{http.StatusHTTPVersionNotSupported, "only HTTP/1.0 and HTTP/1.1 are served here"}
		}
		return bad("the request line does not end with an HTTP version")
	}
	if len(method) > maxMethod || !isToken(method) {
		return bad("the method is not a token")
	}
	switch string(method) {
	case http.MethodConnect, http.MethodTrace, "TRACK":
		// No proxy, no echo: the Fetch standard forbids workers to see these methods as well.
		return &malformed{http.StatusNotImplemented, "this method is not served here"}
	}
	if len(target) > s.wire.URLBytes {
		return &malformed{http.StatusRequestURITooLong, "the request target is too long"}
	}
	for _, c := range target {
		if c <= ' ' || c == 0x7f || c == '#' {
			return bad("the request target holds a space, a control character or a fragment")
		}
	}
	switch {
	case target[0] == '/':
	case len(target) == 1 && target[0] == '*' && string(method) == http.MethodOptions:
	default:
		scheme, rest, ok := bytes.Cut(target, []byte("://"))
		if !ok || !bytes.EqualFold(scheme, []byte("http")) && !bytes.EqualFold(scheme, []byte("https")) {
			return bad("the request target is neither a path nor an http URL")
		}
		if k := bytes.IndexAny(rest, "/?"); k >= 0 {
			rest = rest[:k]
		}
		if len(rest) == 0 || bytes.IndexByte(rest, '@') >= 0 {
			return bad("the request target has no host, or user information")
		}
		s.target = string(rest)
	}
	return nil
}

func (s *strictReader) field(line []byte) *malformed {
	if line[0] == ' ' || line[0] == '\t' {
		return bad("header fields may not be folded over lines")
	}
	name, value, m := splitField(line)
	if m != nil {
		return m
	}
	s.fields++
	s.fieldBytes += len(name) + len(value) + 2
	if s.fields > s.wire.HeaderCount || s.fieldBytes > s.wire.HeaderBytes {
		return &malformed{http.StatusRequestHeaderFieldsTooLarge, "too many header fields, or too large ones"}
	}
	switch len(name) {
	case len("host"):
		if equalFold(name, "host") {
			s.hosts++
			s.host = string(value)
		}
	case len("expect"):
		if equalFold(name, "expect") && !equalFold(value, "100-continue") {
			return &malformed{http.StatusExpectationFailed, "the only expectation met here is 100-continue"}
		}
	case len("content-length"):
		if equalFold(name, "content-length") {
			if s.length >= 0 {
				return bad("Content-Length is given more than once")
			}
			n, ok := decimal(value)
			if !ok {
				return bad("Content-Length is not a number")
			}
			s.length = n
		}
	case len("transfer-encoding"):
		if equalFold(name, "transfer-encoding") {
			if s.chunked {
				return bad("Transfer-Encoding is given more than once")
			}
			if !equalFold(value, "chunked") {
				return &malformed{http.StatusNotImplemented, "the only transfer coding served here is chunked"}
			}
			s.chunked = true
		}
	}
	return nil
}

// endOfHead judges the head as a whole and says what follows it.
func (s *strictReader) endOfHead() *malformed {
	switch {
	case s.hosts > 1:
		return bad("Host is given more than once")
	case s.hosts == 0 && !s.http10:
		return bad("Host is missing")
	case s.hosts == 1 && !plainHost(s.host):
		return bad("Host is not a name or address with a port")
	case s.target != "" && s.hosts == 1 && !strings.EqualFold(s.target, s.host):
		return bad("Host is not the host of the request target")
	case s.chunked && s.length >= 0:
		return bad("Content-Length and Transfer-Encoding exclude each other")
	case s.chunked && s.http10:
		return bad("HTTP/1.0 has no Transfer-Encoding")
	case s.chunked:
		s.state = readChunkSize
	case s.length > 0:
		s.state, s.left = readBody, uint64(s.length)
	default:
		s.state = readRequestLine
	}
	return nil
}

func (s *strictReader) chunkSize(line []byte) *malformed {
	digits, ext, _ := bytes.Cut(line, []byte(";"))
	s.extraBytes += len(ext)
	if len(digits) == 0 || len(digits) > 15 {
		return bad("a chunk size is empty or too large")
	}
	s.left = 0
	for _, c := range digits {
		d := hexDigit[c]
		if d == 0 {
			return bad("a chunk size is not hexadecimal")
		}
		s.left = s.left<<4 | uint64(d-1)
	}
	for _, c := range ext {
		if c < ' ' && c != '\t' || c == 0x7f {
			return bad("a chunk extension holds a control character")
		}
	}
	s.state = readChunk
	if s.left == 0 {
		s.state = readTrailers
	}
	return nil
}

// splitField splits "name: value" and trims the value.
func splitField(line []byte) (name, value []byte, m *malformed) {
	i := bytes.IndexByte(line, ':')
	if i <= 0 || !isToken(line[:i]) {
		return nil, nil, bad("a header field name is not a token")
	}
	for _, c := range line[i+1:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, bad("a header field value holds a control character")
		}
	}
	return line[:i], bytes.Trim(line[i+1:], " \t"), nil
}

// decimal parses a Content-Length: 1*DIGIT (RFC 9110 §8.6), no sign, no list.
func decimal(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// equalFold compares with a lower-case ASCII constant, without the Unicode folding of
// bytes.EqualFold, by which "K" (U+212A) would equal "k".
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenByte[c] {
			return false
		}
	}
	return len(b) > 0
}

// tokenByte marks tchar of RFC 9110 §5.6.2.
var tokenByte = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

// hexDigit holds a hexadecimal digit's value plus one; 0 for other bytes.
var hexDigit = func() (t [256]byte) {
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i) + 1
	}
	for i, c := range []byte("ABCDEF") {
		t[c] = byte(i) + 11
	}
	return t
}()
