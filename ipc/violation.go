package ipc

import "fmt"

// Kind says which rule of the protocol a peer broke. The set is closed: incidents, metrics
// and tests use these names.
type Kind uint8

const (
	// KindFraming: the stream framing is not one segment of a permitted size.
	KindFraming Kind = iota + 1
	// KindEncoding: the segment is not a well-formed Cap'n Proto message of the schema.
	KindEncoding
	// KindType: a frame that this side never sends.
	KindType
	// KindStream: a stream id that does not exist, or no longer.
	KindStream
	// KindState: a frame that may not come in the stream's present state.
	KindState
	// KindWindow: more body bytes than granted, or a grant of more than was sent.
	KindWindow
	// KindSize: a field larger than its limit.
	KindSize
	// KindHeaders: flattened headers or a status that HTTP does not know.
	KindHeaders
	// KindOutcome: an outcome that only the gateway may decide, or none at all.
	KindOutcome
	// KindPong: an answer to a ping that was not sent.
	KindPong
	// KindControl: misuse of the control channel.
	KindControl
)

var kindNames = [...]string{
	KindFraming:  "framing",
	KindEncoding: "encoding",
	KindType:     "type",
	KindStream:   "stream",
	KindState:    "state",
	KindWindow:   "window",
	KindSize:     "size",
	KindHeaders:  "headers",
	KindOutcome:  "outcome",
	KindPong:     "pong",
	KindControl:  "control",
}

// String returns the stable name, "kind(N)" for a number outside the set.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ViolationError reports that a peer broke the protocol. Nothing more of what it sends may be
// believed: the channel is closed and, if the peer is a shard, the shard is killed.
type ViolationError struct {
	Kind   Kind
	Stream uint64 // 0 when no stream is concerned
	Detail string // for operators; holds no bytes of the peer
}

func (e *ViolationError) Error() string {
	if e.Stream != 0 {
		return fmt.Sprintf("protocol violation (%s) on stream %d: %s", e.Kind, e.Stream, e.Detail)
	}
	return fmt.Sprintf("protocol violation (%s): %s", e.Kind, e.Detail)
}

// Violation makes a *ViolationError with a formatted detail.
func Violation(k Kind, stream uint64, format string, args ...any) *ViolationError {
	return &ViolationError{Kind: k, Stream: stream, Detail: fmt.Sprintf(format, args...)}
}
