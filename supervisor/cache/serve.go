package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/observe"
)

// Exchange is the shard's side of an operation; see gatewayside.Subrequest for the contract.
type Exchange interface {
	io.ReadWriter // the body of a put, that of a match
	Context() context.Context
	RefuseBody()
	Respond(*gatewayside.Answer) error
	End()
	Fail(message string)
}

// Request is an operation as a shard asks for it: GET is match, PUT is put, DELETE is delete. Its first
// field says the rest; see order.
type Request struct {
	Method  string
	URL     string
	Headers []byte // flat, checked
	NoBody  bool
	ID      string // of the client's request, for the log
}

// Answers to an operation, in place of the URL that answered: a response that is kept may have any
// status, so that the status cannot say.
const (
	Hit     = "hit"     // the response is the one kept
	Miss    = "miss"    // there is none
	Stored  = "stored"  // by a put
	Refused = "refused" // by a put: it is not kept, and that is no error
	Deleted = "deleted" // by a delete, and there was one
)

// maxName bounds the name of a cache, bytes of UTF-8.
const maxName = 512

// orderField is the name of the field that comes first.
const orderField = "cache"

// order is its value: the cache's name; for a put also the response's status, how many of the request's
// fields follow before the response's, and the reason phrase. A blank separates them; the name is
// percent-encoded.
type order struct {
	name       string
	status     int
	request    int
	statusText string
}

var errOrder = errors.New("malformed cache operation")

// parseOrder reads the first field and returns the others.
func parseOrder(method string, flat []byte) (o order, rest []byte, err error) {
	name, rest, ok1 := bytes.Cut(flat, []byte{'\n'})
	value, rest, ok2 := bytes.Cut(rest, []byte{'\n'})
	if !ok1 || !ok2 || string(name) != orderField {
		return o, nil, errOrder
	}
	want := map[string]int{"GET": 1, "DELETE": 1, "PUT": 4}[method]
	parts := strings.SplitN(string(value), " ", want)
	if want == 0 || len(parts) != want {
		return o, nil, errOrder
	}
	if o.name, err = url.PathUnescape(parts[0]); err != nil || len(o.name) > maxName {
		return o, nil, errOrder
	}
	if method != "PUT" {
		return o, rest, nil
	}
	status, err1 := strconv.ParseUint(parts[1], 10, 16)
	n, err2 := strconv.ParseUint(parts[2], 10, 16)
	if err1 != nil || err2 != nil || status < 200 || status > 599 {
		return o, nil, errOrder
	}
	o.status, o.request, o.statusText = int(status), int(n), parts[3]
	return o, rest, nil
}

// fields reads flat fields, at most n.
func fields(flat []byte, n int) (list []field, rest []byte) {
	for name, value := range ipc.Headers(flat) {
		if n == 0 {
			break
		}
		n--
		list = append(list, field{string(name), string(value)})
		flat = flat[len(name)+len(value)+2:]
	}
	return list, flat
}

// Do performs an operation of the tenant and returns when it is over.
func (c *Cache) Do(tenant string, r *gatewayside.Subrequest) {
	if r.Call != "" || r.Upgrade {
		r.Fail(errOrder.Error())
		return
	}
	c.Serve(tenant, Request{Method: r.Method, URL: r.URL, Headers: r.Headers, NoBody: r.BodyMode == gen.BodyMode_none, ID: r.Request}, r)
}

// Serve is Do for any Exchange.
func (c *Cache) Serve(tenant string, r Request, x Exchange) {
	o, rest, err := parseOrder(r.Method, r.Headers)
	if err != nil {
		x.Fail(err.Error())
		return
	}
	use := c.opt.Observer.Metrics.Tenant(tenant).Cache()
	key := keyOf(o.name, r.URL)
	request, rest := fields(rest, map[bool]int{true: o.request, false: c.opt.Wire.HeaderCount}[r.Method == "PUT"])
	switch r.Method {
	case "GET":
		e := c.find(tenant, key, request, time.Now())
		if e == nil {
			use.Count(observe.CacheMiss)
			say(x, Miss)
			return
		}
		use.Count(observe.CacheHit)
		defer c.read(e)
		give(x, e)
	case "DELETE":
		x.RefuseBody()
		if c.remove(tenant, key, request, time.Now()) {
			say(x, Deleted)
		} else {
			say(x, Miss)
		}
	case "PUT":
		err := c.put(tenant, r, o, key, request, rest, x)
		switch {
		case err == nil:
			say(x, Stored)
			return
		case x.Context().Err() != nil, errors.Is(err, gatewayside.ErrReleased):
			use.Count(observe.CacheRefused)
			x.Fail("the invocation did not wait for it")
			return
		}
		use.Count(observe.CacheRefused)
		var broken bodyError
		if errors.As(err, &broken) {
			x.Fail(broken.Error())
			return
		}
		// No error to the worker, as little as in Workers: a cache may always forget. Its log has it.
		c.opt.Observer.Logs.Note(tenant, "cache", observe.Line{Time: time.Now().UTC(), Level: gen.LogEntry_Level_warn.String(), Request: r.ID, Attempt: 1,
			Text: "cache.put: the response is not kept: " + err.Error()})
		x.RefuseBody()
		say(x, Refused)
	}
}

// bodyError: the body did not come whole.
type bodyError struct{ error }

// put takes a response in. The error is why it is not kept.
func (c *Cache) put(tenant string, r Request, o order, key string, request []field, flat []byte, x Exchange) error {
	now := time.Now()
	h := http.Header{}
	for name, value := range ipc.Headers(flat) {
		n := http.CanonicalHeaderKey(string(name))
		h[n] = append(h[n], string(value))
	}
	names, any := varying(h["Vary"])
	if o.status == http.StatusPartialContent || o.status == http.StatusNotModified || any {
		return errors.New("it is partial, or a 304, or varies by everything") // told in the worker before: not by our runtime
	}
	age, fresh, without, err := freshness(h, now)
	if err != nil {
		return err
	}
	e := &entry{key: key, status: o.status, statusText: o.statusText, noBody: r.NoBody, age: age, stored: now, stale: now.Add(fresh)}
	announced := uint64(0)
	for name, value := range ipc.Headers(flat) {
		switch n := string(name); {
		case n == "content-length":
			announced, err = strconv.ParseUint(string(value), 10, 63)
			if err != nil {
				return errShort
			}
		case n == "age", contains(without, n):
		default:
			e.headers = ipc.AppendHeader(e.headers, n, string(value))
		}
	}
	for _, n := range names {
		e.vary = append(e.vary, field{n, valueOf(request, n)})
	}
	p, err := c.begin(tenant)
	if err != nil {
		return err
	}
	defer p.cancel()
	size := overhead + len(key) + len(e.headers) + len(e.statusText)
	for _, v := range e.vary {
		size += len(v.name) + len(v.value) + 32
	}
	if err := p.take(uint64(size)); err != nil {
		return err
	}
	if announced > p.left() {
		return errEntry
	}
	if !r.NoBody {
		if e.body, e.length, err = p.read(x); err != nil {
			if errors.Is(err, errEntry) || errors.Is(err, errRoom) {
				return err
			}
			return bodyError{err}
		}
	}
	if h["Content-Length"] != nil && !r.NoBody && announced != e.length {
		return errShort
	}
	return p.keep(e, request)
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// say answers without a response.
func say(x Exchange, word string) {
	// An error is of an invocation that no longer waits.
	_ = x.Respond(&gatewayside.Answer{Status: http.StatusNoContent, URL: word, NoBody: true})
}

// give answers with a response, as fast as its reader takes it.
func give(x Exchange, e *entry) {
	headers := append([]byte(nil), e.headers...)
	headers = ipc.AppendHeader(headers, "age", strconv.FormatInt(int64((e.age+time.Since(e.stored))/time.Second), 10))
	if !e.noBody {
		headers = ipc.AppendHeader(headers, "content-length", strconv.FormatUint(e.length, 10))
	}
	err := x.Respond(&gatewayside.Answer{Status: e.status, StatusText: e.statusText, URL: Hit, Headers: headers, NoBody: e.noBody})
	var breach *ipc.ViolationError
	if errors.As(err, &breach) { // Age and Content-Length were too much
		x.Fail("the response's headers are over the limit")
		return
	}
	if err != nil || e.noBody {
		return
	}
	for _, b := range e.body {
		if _, err := x.Write(b); err != nil {
			x.Fail(err.Error())
			return
		}
	}
	x.End()
}
