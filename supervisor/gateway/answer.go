package gateway

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"bulkhead/schema/gen"
)

// newRequestID returns 24 hexadecimal digits that nobody can predict or repeat; math/rand/v2's
// top-level generator is ChaCha8 seeded by the kernel, per thread, without a lock.
func newRequestID() string {
	var b [12]byte
	a, c := rand.Uint64(), rand.Uint32()
	for i := range 8 {
		b[i] = byte(a >> (8 * i))
	}
	for i := range 4 {
		b[8+i] = byte(c >> (8 * i))
	}
	return hex.EncodeToString(b[:])
}

// statusOf is the HTTP status of an answer that is not the tenant's own.
func statusOf(o gen.Outcome) int {
	switch o {
	case gen.Outcome_exception, gen.Outcome_notLoaded:
		return http.StatusInternalServerError
	case gen.Outcome_exceededCpu, gen.Outcome_exceededMemory, gen.Outcome_killed:
		return http.StatusServiceUnavailable
	case gen.Outcome_exceededWallTime:
		return http.StatusGatewayTimeout
	case gen.Outcome_crashed, gen.Outcome_protocolViolation:
		return http.StatusBadGateway
	case gen.Outcome_loadShed:
		return http.StatusTooManyRequests
	case gen.Outcome_scriptNotFound:
		return http.StatusNotFound
	case gen.Outcome_canceled:
		return 499 // nobody reads it; the number proxies log for it
	}
	return http.StatusInternalServerError
}

// plainMessage is what an answer says when the details are the tenant's business.
func plainMessage(o gen.Outcome) string {
	switch o {
	case gen.Outcome_exception:
		return "the worker threw an exception or gave no response; its log has the details"
	case gen.Outcome_notLoaded:
		return "the worker could not be started; its log has the details"
	case gen.Outcome_exceededCpu:
		return "the worker used more CPU time than its limit"
	case gen.Outcome_exceededMemory:
		return "the worker used more memory than its limit"
	case gen.Outcome_exceededWallTime:
		return "the worker took longer than its limit"
	case gen.Outcome_crashed:
		return "the worker's process ended while it was serving this request"
	case gen.Outcome_killed:
		return "the request was ended by the operator or by policy"
	case gen.Outcome_loadShed:
		return "too busy, try again"
	case gen.Outcome_scriptNotFound:
		return "no worker answers for this host name"
	case gen.Outcome_protocolViolation:
		return "the worker's process misbehaved and was ended while it was serving this request"
	case gen.Outcome_canceled:
		return "the client went away"
	}
	return "bulkhead failed to serve this request"
}

// answer is one answer of ours.
type answer struct {
	status     int
	outcome    gen.Outcome
	tenant     string
	request    string
	message    string
	retryAfter time.Duration // 0: no Retry-After
	close      bool          // tell the client to use another connection
}

// answerBody is the JSON of every answer that is not a tenant's own. The names are a contract.
type answerBody struct {
	Outcome string `json:"outcome"`
	Tenant  string `json:"tenant"`
	Request string `json:"request"`
	Message string `json:"message"`
}

func (a *answer) body() []byte {
	b, err := json.Marshal(answerBody{a.outcome.String(), a.tenant, a.request, bounded(a.message, maxMessage)})
	if err != nil {
		return []byte("{}\n") // strings always marshal
	}
	return append(b, '\n')
}

// maxMessage bounds what a client reads about a failure, bytes.
const maxMessage = 2 << 10

// bounded cuts s at a rune boundary.
func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func (a *answer) write(w http.ResponseWriter, r *http.Request) {
	body := a.body()
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	h["Cache-Control"] = []string{"no-store"}
	h[headerOutcome] = []string{a.outcome.String()}
	h[headerRequestID] = []string{a.request}
	if a.retryAfter > 0 {
		h["Retry-After"] = []string{strconv.Itoa(int((a.retryAfter + time.Second - 1) / time.Second))}
	}
	if a.close {
		h["Connection"] = []string{"close"}
	}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}

// rawRefusal is the whole answer to a head that net/http never hands to the handler. The request
// has no tenant and reached nobody; of the closed set of outcomes, "refused before it began" is
// loadShed, and the status says what was wrong.
func (s *Server) rawRefusal(m *malformed) []byte {
	a := answer{status: m.status, outcome: gen.Outcome_loadShed, request: newRequestID(), message: m.message}
	s.obs.Metrics.Refused(strconv.Itoa(m.status))
	body := a.body()
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n%s: %s\r\n%s: %s\r\nCache-Control: no-store\r\nConnection: close\r\n"+
		"Content-Length: %d\r\nContent-Type: application/json\r\nDate: %s\r\n\r\n%s",
		m.status, http.StatusText(m.status), headerOutcome, a.outcome, headerRequestID, a.request,
		len(body), time.Now().UTC().Format(http.TimeFormat), body)
}
