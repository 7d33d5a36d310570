package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// client speaks HTTP/1.1 to one address over connections that it keeps. It is written by hand
// because net/http's sends idempotent requests again when a connection breaks: here each request is
// sent once, and what became of that one sending is the answer.
type client struct {
	network, addr string
	timeout       time.Duration // of a whole exchange

	mu   sync.Mutex
	idle []*clientConn // guarded by mu; the latest used is the last
}

type clientConn struct {
	net.Conn
	br    *bufio.Reader
	since time.Time // when it became idle
}

// idleConn is how long a connection may rest before it is not trusted to be open any more.
const idleConn = 20 * time.Second

func newClient(addr string) *client {
	return &client{network: "tcp", addr: addr, timeout: 45 * time.Second}
}

// request is one request as the client sends it.
type request struct {
	method, host, path string
	body               []byte
	ctx                context.Context // its end is the client's leave; nil for none
	discard            bool            // the body is read, and dropped
}

// reply is what became of one request.
type reply struct {
	head    bool // a response head came; err then means that its body was cut
	status  int
	outcome string // the header bulkhead-outcome: the answer is the host's, not the tenant's
	id      string // the header bulkhead-request-id
	body    []byte
	err     error // of the transport
	first   time.Duration
	took    time.Duration
}

// message is what the host says of a request that it ended.
func (a *reply) message() string {
	var b struct {
		Message string `json:"message"`
	}
	if a.outcome == "" || json.Unmarshal(a.body, &b) != nil {
		return ""
	}
	return b.Message
}

// String says how a request ended in a few words, the same for all that ended so.
func (a *reply) String() string {
	switch {
	case a.err != nil && a.head:
		return "cut off after the head"
	case a.err != nil:
		text := a.err.Error()
		if i := strings.LastIndex(text, ": "); i >= 0 {
			text = text[i+2:] // addresses come first, and differ
		}
		return "no answer: " + text
	case a.outcome != "":
		return fmt.Sprintf("%d %s", a.status, a.outcome)
	}
	return fmt.Sprint(a.status)
}

// do sends one request once and reads the whole response.
func (c *client) do(r request) (a reply) {
	start := time.Now()
	defer func() { a.took = time.Since(start) }()
	conn, err := c.conn()
	if err != nil {
		a.err = err
		return a
	}
	conn.SetDeadline(start.Add(c.timeout))
	if r.ctx != nil {
		defer context.AfterFunc(r.ctx, func() { conn.Close() })()
	}
	out := make([]byte, 0, 256+len(r.body))
	out = fmt.Appendf(out, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method, r.path, r.host)
	if r.body != nil || r.method == http.MethodPost {
		out = fmt.Appendf(out, "Content-Length: %d\r\n", len(r.body))
	}
	out = append(append(out, "\r\n"...), r.body...)
	if _, err := conn.Write(out); err != nil {
		a.err = err // what the server may have said before it closed is not waited for
		conn.Close()
		return a
	}
	resp, err := http.ReadResponse(conn.br, &http.Request{Method: r.method})
	a.first = time.Since(start)
	if err != nil {
		a.err = err
		conn.Close()
		return a
	}
	a.head, a.status = true, resp.StatusCode
	a.outcome, a.id = resp.Header.Get("bulkhead-outcome"), resp.Header.Get("bulkhead-request-id")
	if r.discard {
		_, a.err = io.Copy(io.Discard, resp.Body)
	} else {
		a.body, a.err = io.ReadAll(resp.Body)
	}
	if a.err != nil || resp.Close || r.ctx != nil {
		conn.Close()
		return a
	}
	c.keep(conn)
	return a
}

func (c *client) conn() (*clientConn, error) {
	c.mu.Lock()
	for n := len(c.idle); n > 0; n = len(c.idle) {
		conn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		if time.Since(conn.since) < idleConn {
			c.mu.Unlock()
			return conn, nil
		}
		conn.Close()
	}
	c.mu.Unlock()
	nc, err := net.DialTimeout(c.network, c.addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &clientConn{Conn: nc, br: bufio.NewReader(nc)}, nil
}

func (c *client) keep(conn *clientConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn.since = time.Now()
	c.idle = append(c.idle, conn)
}

// close ends the idle connections.
func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.idle {
		conn.Close()
	}
	c.idle = nil
}

// get asks for a path; ok is a complete 200 of the tenant's own.
func (c *client) get(host, path string) (a reply, ok bool) {
	a = c.do(request{method: http.MethodGet, host: host, path: path})
	return a, a.err == nil && a.status == http.StatusOK && a.outcome == ""
}

// adminGet asks the operators' API and decodes its answer; a *[]byte gets it as it is.
func (c *client) admin(method, path string, into any) error {
	a := c.do(request{method: method, host: "admin", path: path})
	switch {
	case a.err != nil:
		return fmt.Errorf("admin %s %s: %w", method, path, a.err)
	case a.status >= 300:
		return fmt.Errorf("admin %s %s: %d: %s", method, path, a.status, bytes.TrimSpace(a.body))
	}
	switch into := into.(type) {
	case nil:
		return nil
	case *[]byte:
		*into = a.body
		return nil
	}
	return json.Unmarshal(a.body, into)
}
