package egress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"bulkhead/ipc"
	"bulkhead/schema/gen"
)

type counter struct{ atomic.Uint64 }

// parseURL takes what passed ipc.Fetch.Check apart. What is behind the authority goes to the upstream
// as it is: net/url would refuse or re-write some of what a browser sends.
func parseURL(s string) (*url.URL, error) {
	scheme, rest, _ := strings.Cut(s, "://")
	target := "/"
	if i := strings.IndexAny(rest, `/?\`); i >= 0 {
		rest, target = rest[:i], rest[i:]
		if target[0] != '/' {
			target = "/" + target
		}
	}
	bad := func() (*url.URL, error) { return nil, fmt.Errorf("%q is no URL that can be requested", shorten(s)) }
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.ContainsAny(u.Host, "%@") {
		return bad()
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return bad()
		}
	}
	u.Host = strings.ToLower(strings.TrimSuffix(u.Host, ":"))
	if full, err := url.Parse(scheme + "://" + u.Host + target); err == nil && full.RequestURI() == target {
		return full, nil
	}
	if strings.HasPrefix(target, "//") {
		return bad() // as Opaque it would be taken for an authority
	}
	u.Opaque = target
	return u, nil
}

// follow resolves a redirect's location.
func follow(from *url.URL, location string) (*url.URL, error) {
	base := from
	if base.Opaque != "" {
		base = &url.URL{Scheme: from.Scheme, Host: from.Host, Path: "/"}
	}
	to, err := base.Parse(location)
	if err != nil || (to.Scheme != "http" && to.Scheme != "https") {
		return nil, fmt.Errorf("%s redirects to what is no http or https URL", from.Host)
	}
	if to.User != nil {
		return nil, fmt.Errorf("%s redirects to a URL with credentials", from.Host)
	}
	to.Fragment, to.RawFragment = "", ""
	s := to.String()
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return nil, fmt.Errorf("%s redirects to what is no URL", from.Host)
		}
	}
	return parseURL(s)
}

// text is a URL as the tenant gets to see it.
func text(u *url.URL) string {
	if u.Opaque != "" {
		return u.Scheme + "://" + u.Host + u.Opaque
	}
	return u.String()
}

func hostPort(u *url.URL) (string, uint16) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	n, _ := strconv.ParseUint(port, 10, 16) // parseURL has checked it
	return u.Hostname(), uint16(n)
}

// ownPrefix begins the names of header fields that only this host sets.
const ownPrefix = "Bulkhead-"

// dropped says of a field, by its canonical name, that it is not the tenant's to send, or the
// upstream's to send through: it concerns one connection (RFC 9110 §7.6.1), or follows from the request.
func dropped(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Expect":
		return true
	}
	return own(name)
}

// own says whether an upstream could take a field for one of ours. Case is no difference, and to many
// servers (CGI, WSGI, Rack, PHP) neither is which sign stands between the words.
func own(name string) bool {
	if len(name) < len(ownPrefix) {
		return false
	}
	last := name[len(ownPrefix)-1]
	letter := last >= 'a' && last <= 'z' || last >= 'A' && last <= 'Z' || last >= '0' && last <= '9'
	return !letter && strings.EqualFold(name[:len(ownPrefix)-1], ownPrefix[:len(ownPrefix)-1])
}

// requestHeaders makes net/http's form of flat headers. Content-Length is there until attach takes it.
func requestHeaders(flat []byte) http.Header {
	h := http.Header{}
	for name, value := range ipc.Headers(flat) {
		n := textproto.CanonicalMIMEHeaderKey(string(name))
		if dropped(n) || n == "Host" {
			continue
		}
		h[n] = append(h[n], string(value))
	}
	if h["User-Agent"] == nil {
		h["User-Agent"] = []string{"bulkhead"}
	}
	if h["Accept"] == nil {
		h["Accept"] = []string{"*/*"}
	}
	return h
}

// requestBody is the body of a subrequest: all of it in memory, or as it comes.
type requestBody struct {
	f     *fetch
	mode  gen.BodyMode
	whole []byte
	read  bool // whole was taken from the exchange
}

func (b *requestBody) init(f *fetch) { b.f, b.mode = f, f.r.BodyMode }

// attach gives the request its body.
func (b *requestBody) attach(req *http.Request) error {
	length := req.Header["Content-Length"]
	delete(req.Header, "Content-Length")
	switch b.mode {
	case gen.BodyMode_whole:
		if !b.read {
			p, err := io.ReadAll(b.f.x)
			if err != nil {
				return err
			}
			b.whole, b.read = p, true
			b.f.sent.Add(uint64(len(p)))
		}
		req.ContentLength = int64(len(b.whole))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.whole)), nil }
		if len(b.whole) == 0 {
			req.Body = http.NoBody
		} else {
			req.Body, _ = req.GetBody()
		}
	case gen.BodyMode_streamed:
		req.ContentLength = -1
		// The runtime sets it where the length is known; net/http holds the body to it.
		if len(length) == 1 {
			if n, err := strconv.ParseUint(length[0], 10, 62); err == nil {
				req.ContentLength = int64(n)
			}
		}
		if req.ContentLength == 0 {
			req.ContentLength = -1
		}
		req.Body = b
	}
	return nil
}

// again says whether the body can be sent once more.
func (b *requestBody) again() bool { return b.mode != gen.BodyMode_streamed }

// drop makes further requests go without a body.
func (b *requestBody) drop() {
	if b.mode == gen.BodyMode_streamed {
		b.f.x.RefuseBody()
	}
	b.mode, b.whole = gen.BodyMode_none, nil
}

var errRequestTooLarge = errors.New("the request body is larger than this worker may send")

// Read streams the body to the upstream.
func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.f.x.Read(p)
	if b.f.sent.Add(uint64(n)) > b.f.c.judge.Rules().Bytes {
		return n, errRequestTooLarge
	}
	return n, err
}

// Close is net/http's word that it wants no more. The exchange is told when the response is over.
func (b *requestBody) Close() error { return nil }
