package egress

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxCoders is how many decoders with windows of megabytes one tenant may have under way: 16 MiB of
	// brotli, 8 MiB of zstd. Beyond that gzip alone is offered.
	maxCoders = 16
	// zstdWindow is what a decoder of the coding must support and need not exceed (RFC 9659).
	zstdWindow = 8 << 20
	// maxCodings bounds codings on top of each other; more than one is a curiosity.
	maxCodings = 3
)

// offer is the Accept-Encoding of a request: with the large ones if the tenant has a place left.
func (f *fetch) offer() string {
	if !f.coder {
		if f.c.coders.Add(1) > maxCoders {
			f.c.coders.Add(-1)
			return "gzip"
		}
		f.coder = true
	}
	return "gzip, br, zstd"
}

func (f *fetch) releaseCoder() {
	if f.coder {
		f.coder = false
		f.c.coders.Add(-1)
	}
}

// decoder undoes the response's content codings; nil if it has none, or one that is not known here,
// which the tenant then gets as it is.
func (f *fetch) decoder(resp *http.Response) (io.ReadCloser, error) {
	var codings []string
	large := false
	for _, v := range resp.Header["Content-Encoding"] {
		for part := range strings.SplitSeq(v, ",") {
			c := strings.ToLower(strings.TrimSpace(part))
			switch c {
			case "", "identity":
				continue
			case "br", "zstd":
				large = true
			case "gzip", "x-gzip", "deflate":
			default:
				return nil, nil
			}
			codings = append(codings, c)
		}
	}
	if len(codings) == 0 {
		return nil, nil
	}
	if len(codings) > maxCodings {
		return nil, fmt.Errorf("the response has %d content codings on top of each other", len(codings))
	}
	if large && !f.coder && f.offer() == "gzip" {
		return nil, errors.New("the response comes compressed in a way that was not offered: too many such responses are under way")
	}
	out := &stack{Reader: resp.Body}
	for i := len(codings) - 1; i >= 0; i-- {
		out.Reader = &lazy{coding: codings[i], in: out.Reader}
		out.closers = append(out.closers, out.Reader.(*lazy))
	}
	return out, nil
}

// stack is a reader with what is to be closed behind it.
type stack struct {
	io.Reader
	closers []*lazy
}

func (s *stack) Close() error {
	for _, c := range s.closers {
		c.close()
	}
	return nil
}

// lazy makes its decoder with the first read: making one may wait for the upstream's first bytes, and
// the response's head must not.
type lazy struct {
	coding string
	in     io.Reader
	out    io.Reader
	done   func()
	err    error
}

func (l *lazy) Read(p []byte) (int, error) {
	if l.out == nil && l.err == nil {
		l.err = l.start()
	}
	if l.err != nil {
		return 0, l.err
	}
	return l.out.Read(p)
}

func (l *lazy) start() error {
	// An empty body is one of no coding, whatever the header says.
	in := bufio.NewReader(l.in)
	if _, err := in.Peek(1); err != nil {
		return err
	}
	switch l.coding {
	case "gzip", "x-gzip":
		r, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		l.out = r
	case "deflate":
		r, err := zlib.NewReader(in)
		if err != nil {
			return err
		}
		l.out = r
	case "br":
		l.out = brotli.NewReader(in)
	case "zstd":
		r, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow),
			zstd.WithDecoderMaxMemory(zstdWindow*2))
		if err != nil {
			return err
		}
		l.out, l.done = r, r.Close
	}
	return nil
}

func (l *lazy) close() {
	if l.done != nil {
		l.done()
		l.done = nil
	}
}
