package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
)

// copyBuffers are what response bodies are copied through.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

var errIdle = errors.New("the upstream went silent in the middle of its response")

// answer gives the response to the shard.
func (f *fetch) answer(ctx context.Context, cancel context.CancelCauseFunc, method string, u *url.URL, redirected bool, resp *http.Response) error {
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 999 {
		return fmt.Errorf("%s answered with status %d", u.Host, resp.StatusCode)
	}
	noBody := method == "HEAD" || resp.StatusCode == 204 || resp.StatusCode == 205 || resp.StatusCode == 304
	var body io.Reader = resp.Body
	decoded := false
	if !noBody {
		d, err := f.decoder(resp)
		if err != nil {
			return err
		}
		if d != nil {
			defer d.Close()
			body, decoded = d, true
		}
	}
	flat, err := f.responseHeaders(resp, decoded)
	if err != nil {
		return fmt.Errorf("%s answered with headers that cannot be passed on: %w", u.Host, err)
	}
	a := &gatewayside.Answer{Status: resp.StatusCode, URL: text(u), Redirected: redirected, Headers: flat, NoBody: noBody}
	if resp.ProtoMajor == 1 {
		_, a.StatusText, _ = strings.Cut(resp.Status, " ")
		if strings.ContainsFunc(a.StatusText, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			a.StatusText = "" // no reason phrase (RFC 9112 §4)
		}
	}
	if len(a.URL) > f.c.e.opt.Wire.URLBytes {
		return fmt.Errorf("%s redirected to a URL of %d bytes, limit %d", u.Host, len(a.URL), f.c.e.opt.Wire.URLBytes)
	}
	if err := f.x.Respond(a); err != nil {
		return err
	}
	if noBody {
		f.x.RefuseBody()
		return nil
	}
	if err := f.copy(ctx, cancel, body); err != nil {
		if cause := context.Cause(ctx); ctx.Err() != nil && cause != nil {
			return cause
		}
		return err
	}
	f.x.RefuseBody() // of a request whose body the upstream did not wait for
	return nil
}

// copy streams the body, for as long as the shard takes it and the upstream is not silent.
func (f *fetch) copy(ctx context.Context, cancel context.CancelCauseFunc, body io.Reader) error {
	bp := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(bp)
	idle := f.c.e.opt.IdleTimeout
	timer := time.AfterFunc(idle, func() { cancel(errIdle) })
	defer timer.Stop()
	most := f.c.judge.Rules().Bytes
	for {
		timer.Reset(idle)
		n, err := body.Read(*bp)
		timer.Stop() // a shard that does not read may take its time; its invocation has a deadline
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if f.received += uint64(n); f.received > most {
			return fmt.Errorf("the response body is larger than this worker may receive (%d bytes)", most)
		}
		if n > 0 {
			if _, werr := f.x.Write((*bp)[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the response was cut: %w", err)
		}
	}
}

// responseHeaders flattens a response's fields, sorted by name.
func (f *fetch) responseHeaders(resp *http.Response, decoded bool) ([]byte, error) {
	connection := resp.Header["Connection"]
	var names []string
	for name := range resp.Header {
		switch {
		case dropped(name):
		case decoded && (name == "Content-Encoding" || name == "Content-Length"):
			// They are of what is not there any more; passed on, they would make a broken response.
		case slices.ContainsFunc(connection, func(v string) bool { return lists(v, name) }):
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var flat []byte
	for _, name := range names {
		lower := strings.ToLower(name)
		for _, v := range resp.Header[name] {
			flat = ipc.AppendHeader(flat, lower, v)
		}
	}
	if err := ipc.CheckHeaders(flat, &f.c.e.opt.Wire); err != nil {
		return nil, errors.New(err.(*ipc.ViolationError).Detail)
	}
	return flat, nil
}

// lists says whether a comma-separated list has name in it.
func lists(list, name string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(part), name) {
			return true
		}
	}
	return false
}
