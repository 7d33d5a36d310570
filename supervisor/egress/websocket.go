package egress

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/supervisor/socket"

	"github.com/coder/websocket"
)

// webSocket opens a WebSocket to an upstream and moves messages until it is closed. The connection is
// dialled and judged as for any subrequest; redirects are not followed. A WebSocket is an effect: what is
// said on it cannot be taken back.
func (f *fetch) webSocket(ctx context.Context, u *url.URL, header http.Header) error {
	x, ok := f.x.(Upgrader)
	if !ok {
		return fmt.Errorf("BUG: a WebSocket for an exchange that takes none")
	}
	host, port := hostPort(u)
	if err := f.c.judge.Host(host, port); err != nil {
		return err
	}
	if err := x.Affect(gatewayside.EffectMessage); err != nil {
		return err
	}
	if reached := f.c.e.opt.Reached; reached != nil {
		reached(append(slices.Clone(f.r.Chain), f.c.tenant), u.Host, u.EscapedPath())
	}
	h := header.Clone()
	if f.c.judge.Internal(host, port) {
		h[headerTenant] = []string{f.c.tenant}
	}
	var protocols []string
	for _, v := range h["Sec-Websocket-Protocol"] {
		for p := range strings.SplitSeq(v, ",") {
			protocols = append(protocols, strings.TrimSpace(p))
		}
	}
	for name := range h {
		if strings.HasPrefix(name, "Sec-Websocket-") || name == "Upgrade" || name == "Connection" {
			delete(h, name)
		}
	}
	p := socket.New(x)
	gate := &socket.Gate{Close: p.Closing, Unmasked: true}
	client := &http.Client{Transport: gated{f.c.http, gate}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	dial, cancel := context.WithTimeout(ctx, f.c.e.opt.HeadTimeout)
	conn, resp, err := websocket.Dial(dial, u.String(), &websocket.DialOptions{
		HTTPClient: client, HTTPHeader: h, Subprotocols: protocols, CompressionMode: websocket.CompressionDisabled,
	})
	cancel()
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return fmt.Errorf("%s does not speak WebSocket here: it answered with status %d", u.Host, resp.StatusCode)
		}
		return err
	}
	conn.SetReadLimit(int64(f.c.e.opt.Wire.Message))
	var flat []byte
	for _, name := range []string{"Sec-Websocket-Protocol", "Set-Cookie"} {
		for _, v := range resp.Header[name] {
			flat = ipc.AppendHeader(flat, strings.ToLower(name), v)
		}
	}
	if err := x.Switch(flat, u.String()); err != nil {
		conn.CloseNow()
		return err
	}
	p.Conn = conn
	gate.Open()
	stop := context.AfterFunc(ctx, func() {
		if !x.Closed() { // else what it said is on its way
			p.End(socket.EndShutdown, websocket.StatusGoingAway, "") // its invocation is over
		}
	})
	p.Run()
	stop()
	f.c.e.opt.Observer.Metrics.SocketEnded("upstream", p.Why())
	return nil
}

// gated puts a gate before what an upstream says on a connection that it has upgraded: the library's answer to its
// close waits for the worker.
type gated struct {
	http.RoundTripper
	gate *socket.Gate
}

func (g gated) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := g.RoundTripper.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return resp, err
	}
	if c, ok := resp.Body.(io.ReadWriteCloser); ok {
		resp.Body = gatedConn{c, g.gate}
	}
	return resp, nil
}

// gatedConn is an upgraded connection behind a gate.
type gatedConn struct {
	io.ReadWriteCloser
	gate *socket.Gate
}

func (c gatedConn) Read(p []byte) (int, error) { return c.gate.Read(c.ReadWriteCloser, p) }
