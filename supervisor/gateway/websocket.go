package gateway

import (
	"encoding/base64"
	"net/http"
	"sync"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/socket"

	"github.com/coder/websocket"
)

// WebSockets of clients. The library speaks RFC 6455 to the client; messages cross to the shard in parts,
// within the stream's windows both ways, so that a side that does not read holds up the other one and
// nothing is kept but a part each way. An open one is a request in flight of its tenant, and its lease
// holds the worker in place.
//
// How one ends that neither side has closed: 1001 (going away) when the host shuts down; 1012 (service
// restart) when its worker is replaced, moved, or ended by the operator; 1013 (try again later) when it was
// shed; 1011 (internal error), with the outcome as reason, for everything else. A client that
// is gone without a word is code 1006 to the worker.

const (
	// socketLook is how often it is looked whether a socket's worker is to go.
	socketLook = time.Second
	// socketFarewell bounds what is waited for to tell the worker of its client's end.
	socketFarewell = 5 * time.Second
)

// wantsSocket says whether a request asks for a WebSocket as RFC 6455 §4.2.1 has it.
func wantsSocket(r *http.Request) bool {
	if r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || r.ContentLength != 0 ||
		!named(r.Header["Upgrade"], "websocket") || !named(r.Header["Connection"], "upgrade") ||
		len(r.Header["Sec-Websocket-Version"]) != 1 || r.Header["Sec-Websocket-Version"][0] != "13" || len(r.Header["Sec-Websocket-Key"]) != 1 {
		return false
	}
	key, err := base64.StdEncoding.DecodeString(r.Header["Sec-Websocket-Key"][0])
	return err == nil && len(key) == 16
}

// clientSocket is one open WebSocket.
type clientSocket struct {
	socket.Pipe
	call   call // without what belongs to the request's handler
	stream *gatewayside.Stream
}

// upgrade answers with status 101 and goes on apart from the request's handler.
func (c *call) upgrade(stream *gatewayside.Stream, head *gatewayside.Head) {
	h := c.w.Header()
	setResponseHeaders(h, head.Headers)
	var protocols []string
	if p := h["Sec-Websocket-Protocol"]; len(p) == 1 {
		protocols = p // the library gives it to a client that offered it
	}
	for _, name := range []string{"Sec-Websocket-Protocol", "Sec-Websocket-Accept", "Sec-Websocket-Extensions", "Sec-Websocket-Key", "Content-Type"} {
		delete(h, name)
	}
	h[headerRequestID] = []string{c.id}
	c.stopPump(false)
	k := &clientSocket{Pipe: socket.New(stream), call: *c, stream: stream}
	gate := &socket.Gate{Close: k.Closing}
	c.g.raw.Store(gate)
	conn, err := websocket.Accept(c.w, c.r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // whose pages may connect is the worker's to say: it has seen Origin
		Subprotocols:       protocols,
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		stream.Cancel(gen.Abort_Reason_clientGone, "the client closed the connection")
		c.finish(stream, gen.Outcome_canceled)
		c.abandon()
		return
	}
	c.g.Conn.SetDeadline(time.Time{})
	conn.SetReadLimit(int64(c.s.wire.Message))
	gate.Open()
	k.Conn = conn
	k.Gone = func() { stream.Cancel(gen.Abort_Reason_clientGone, "the WebSocket is closed") }
	k.call.w, k.call.r, k.call.g, k.call.pump, k.call.service = nil, nil, nil, nil, nil
	c.held = false
	c.s.sockets.add(k)
	c.s.after.Go(k.run)
}

// run moves messages until there are no more, and sees the socket out.
func (k *clientSocket) run() {
	k.Run()
	k.call.s.sockets.remove(k)
	k.call.s.obs.Metrics.SocketEnded("client", k.Why())
	select {
	case <-k.stream.Done():
	case <-time.After(socketFarewell):
		k.stream.Cancel(gen.Abort_Reason_clientGone, "the WebSocket is closed")
		<-k.stream.Done()
	}
	k.call.conclude(k.stream, gen.Outcome_unknown)
}

// socketSet knows the open WebSockets, and ends those whose worker is on its way out.
type socketSet struct {
	mu      sync.Mutex
	set     map[*clientSocket]struct{} // guarded by mu
	looking bool                       // guarded by mu; while there are any
}

func (s *socketSet) add(k *clientSocket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = map[*clientSocket]struct{}{}
	}
	s.set[k] = struct{}{}
	if !s.looking {
		s.looking = true
		go s.look()
	}
}

func (s *socketSet) remove(k *clientSocket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.set, k)
}

func (s *socketSet) all() []*clientSocket {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*clientSocket, 0, len(s.set))
	for k := range s.set {
		list = append(list, k)
	}
	return list
}

// look ends sockets of workers that are replaced or to be moved.
func (s *socketSet) look() {
	tick := time.NewTicker(socketLook)
	defer tick.Stop()
	for range tick.C {
		for _, k := range s.all() {
			if k.call.lease.Retired() {
				k.End(socket.EndReplaced, websocket.StatusServiceRestart, "the worker is being replaced")
			}
		}
		s.mu.Lock()
		if len(s.set) == 0 {
			s.looking = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// endAll ends all sockets: the host is going away.
func (s *socketSet) endAll() {
	for _, k := range s.all() {
		k.End(socket.EndShutdown, websocket.StatusGoingAway, "the host is shutting down")
	}
}

// Sockets is the number of open WebSockets.
func (s *Server) Sockets() int { return len(s.sockets.all()) }

// appendSocketHeader appends what tells a worker that a WebSocket is asked for: the field itself is hop-by-hop.
func appendSocketHeader(b []byte) []byte { return ipc.AppendHeader(b, "upgrade", "websocket") }
