package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// result is what came of one test.
type result struct {
	Path     string    `json:"path"`    // of the file in the checkout, with its variant
	Outcome  string    `json:"outcome"` // "ok" where the file ended in order; else "timeout", "error", or what the host says
	Message  string    `json:"message,omitempty"`
	Millis   int64     `json:"ms"`
	Subtests []subtest `json:"subtests"`
}

type subtest struct {
	Name    string `json:"name"`
	Status  string `json:"status"` // PASS, FAIL, TIMEOUT, NOTRUN, PRECONDITION_FAILED
	Message string `json:"message,omitempty"`
}

const (
	normalTime = 10 * time.Second // what testharness.js gives a page
	longTime   = 60 * time.Second
	// answerBytes bounds an answer: a hundred thousand subtests of usual names fit.
	answerBytes = 64 << 20
)

func (o options) timeout(t test) time.Duration {
	d := normalTime
	if t.long {
		d = longTime
	}
	return time.Duration(float64(d) * o.factor)
}

// runAll runs the tests, some at once, and says how far it is.
func (h *host) runAll(ctx context.Context, o options, tests []test, progress io.Writer) ([]result, error) {
	results := make([]result, len(tests))
	next := make(chan int)
	var mu sync.Mutex
	done, last := 0, time.Time{} // guarded by mu
	var wg sync.WaitGroup
	for range o.jobs {
		wg.Go(func() {
			for i := range next {
				results[i] = h.run(ctx, o, i, tests[i])
				mu.Lock()
				done++
				if now := time.Now(); now.Sub(last) > time.Second || done == len(tests) {
					last = now
					fmt.Fprintf(progress, "%d of %d files, last %s\n", done, len(tests), tests[i].name())
				}
				mu.Unlock()
			}
		})
	}
	for i := range tests {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("interrupted after %d of %d files", done, len(tests))
	}
	return results, nil
}

// run asks one tenant for its test's results.
func (h *host) run(ctx context.Context, o options, i int, t test) (r result) {
	start := time.Now()
	r = result{Path: t.name(), Subtests: []subtest{}}
	defer func() { r.Millis = time.Since(start).Milliseconds() }()
	limit := o.timeout(t)
	// The harness's own limit comes first and keeps what ended in time; this is for a test that never yields.
	ctx, cancel := context.WithTimeout(ctx, limit+limit/2+30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.addr+"/", nil)
	if err != nil {
		r.Outcome, r.Message = "error", err.Error()
		return r
	}
	req.Host = tenantName(i) + ".localhost"
	req.Header.Set("x-base", h.resources+"/"+t.name())
	req.Header.Set("x-title", url.PathEscape(t.title))
	req.Header.Set("x-timeout", fmt.Sprint(limit.Milliseconds()))
	resp, err := h.client.Do(req)
	if err != nil {
		r.Outcome, r.Message = "error", err.Error()
		if ctx.Err() != nil {
			r.Outcome = "timeout"
		}
		return r
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	if err != nil {
		r.Outcome, r.Message = "error", err.Error()
		return r
	}
	if outcome := resp.Header.Get("bulkhead-outcome"); outcome != "" {
		var b struct{ Message string }
		json.Unmarshal(body, &b) // without it the outcome alone must do
		r.Outcome, r.Message = outcome, b.Message
		return r
	}
	var answer struct {
		Harness, Message string
		Subtests         []subtest
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		r.Outcome, r.Message = "error", fmt.Sprintf("the answer (status %d) is no report: %v", resp.StatusCode, err)
		return r
	}
	r.Subtests = append(r.Subtests, answer.Subtests...)
	switch answer.Harness {
	case "OK":
		r.Outcome = "ok"
		if len(answer.Subtests) == 0 {
			r.Outcome, r.Message = "error", "the file ended without a subtest"
		}
	case "TIMEOUT":
		r.Outcome, r.Message = "timeout", fmt.Sprintf("not done after %v", limit)
	default:
		r.Outcome, r.Message = "error", answer.Message
	}
	return r
}
