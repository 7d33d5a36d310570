package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// download is one large body that a tenant pipes from an upstream to a client slower than it.
type download struct {
	Host       hostInfo       `json:"host"`
	Bytes      int64          `json:"bytes"`
	Wrong      string         `json:"wrong"` // what did not arrive as sent; "" is well
	ForMs      float64        `json:"forMs"`
	StalledMs  float64        `json:"stalledMs"` // that the upstream waited for the client
	OverTime   []downloadMemo `json:"overTime"`
	GrowGate   int64          `json:"growGatewayBytes"` // the most, over what it was after a sixteenth
	GrowShards int64          `json:"growShardsBytes"`
}

type downloadMemo struct {
	Bytes   int64  `json:"bytes"`
	Gateway uint64 `json:"gatewayPssBytes"`
	Shards  uint64 `json:"shardsPssBytes"`
}

const (
	downloadSize = 1 << 30
	// downloadRate is what the client takes a second: less than half of what host and upstream could do.
	downloadRate = 32 << 20
	// downloadRoom is how much memory may grow while it runs: buffers of sockets and windows are full
	// after the first part.
	downloadRoom = 32 << 20
)

const pipeSource = `export default { fetch: (request) => fetch("http://" + new URL(request.url).searchParams.get("from") + "/") };` + "\n"

const downloadPolicy = "egress:\n  allow: [\"127.0.0.1\"]\n  bytes: 2GiB\nlimits: {wall: 10m, responseBody: 2GiB}\n"

// pattern is what stands at each place of the body.
func pattern(at int64) byte { return byte(at ^ at>>9 ^ at>>17) }

func (b *bench) download() (*download, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var stalled time.Duration
	up := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(downloadSize))
		buf := make([]byte, 256<<10)
		for at := int64(0); at < downloadSize; at += int64(len(buf)) {
			for i := range buf {
				buf[i] = pattern(at + int64(i))
			}
			start := time.Now()
			if _, err := w.Write(buf); err != nil {
				return
			}
			mu.Lock()
			stalled += time.Since(start)
			mu.Unlock()
		}
	})}
	go up.Serve(l)
	defer up.Close()
	t, err := b.startHost(hostOptions{scratch: b.scratch, policy: downloadPolicy, beside: "egress to 127.0.0.1, 2 GiB bodies, 10 min of wall time", tenants: workers(pipeSource, "pipe")})
	if err != nil {
		return nil, err
	}
	defer t.stop()
	if err := t.built(b.ctx); err != nil {
		return nil, err
	}
	r := &download{Host: t.info}
	conn, err := net.Dial("tcp", t.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Minute))
	begin := time.Now()
	fmt.Fprintf(conn, "GET /?from=%s HTTP/1.1\r\nHost: pipe.localhost\r\n\r\n", l.Addr())
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 64<<10), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return nil, fmt.Errorf("download: %s: %s", resp.Status, text)
	}
	const part = downloadSize / 16
	look := func() {
		g, s := socketMemory(t)
		r.OverTime = append(r.OverTime, downloadMemo{r.Bytes, g, s})
	}
	look()
	buf := make([]byte, 64<<10)
	for next := int64(part); b.ctx.Err() == nil; {
		n, err := resp.Body.Read(buf)
		for i, c := range buf[:n] {
			if c != pattern(r.Bytes+int64(i)) {
				r.Wrong = fmt.Sprintf("byte %d is not what was sent", r.Bytes+int64(i))
			}
		}
		r.Bytes += int64(n)
		if r.Bytes >= next {
			next += part
			look()
			b.say("download: %d MiB of %d", r.Bytes>>20, downloadSize>>20)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			r.Wrong = err.Error()
			break
		}
		time.Sleep(time.Until(begin.Add(time.Duration(float64(r.Bytes) / downloadRate * float64(time.Second)))))
	}
	r.ForMs = ms(time.Since(begin))
	mu.Lock()
	r.StalledMs = ms(stalled)
	mu.Unlock()
	if r.Bytes != downloadSize && r.Wrong == "" {
		r.Wrong = fmt.Sprintf("%d of %d bytes came", r.Bytes, downloadSize)
	}
	for _, m := range r.OverTime[min(2, len(r.OverTime)):] {
		r.GrowGate = max(r.GrowGate, int64(m.Gateway)-int64(r.OverTime[1].Gateway))
		r.GrowShards = max(r.GrowShards, int64(m.Shards)-int64(r.OverTime[1].Shards))
	}
	return r, b.ctx.Err()
}

func (r *download) broken() (out []string) {
	if r.Wrong != "" {
		out = append(out, r.Wrong)
	}
	if r.GrowGate > downloadRoom || r.GrowShards > downloadRoom {
		out = append(out, fmt.Sprintf("memory grew: the gateway by %.0f MB, the shards by %.0f MB", float64(r.GrowGate)/1e6, float64(r.GrowShards)/1e6))
	}
	if r.StalledMs < r.ForMs/4 {
		out = append(out, "the upstream was not held back: the client was not the slow one")
	}
	return out
}

func (r *download) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n%d MiB through a tenant in %.0f s to a client of %d MiB/s; the upstream was held back for %.0f s of it\n",
		r.Host, r.Bytes>>20, r.ForMs/1e3, downloadRate>>20, r.StalledMs/1e3)
	for _, m := range r.OverTime {
		fmt.Fprintf(w, "%5d MiB: gateway %.1f MB, shards %.1f MB\n", m.Bytes>>20, mb(m.Gateway), mb(m.Shards))
	}
	fmt.Fprintf(w, "growth after the first sixteenth: gateway %+.1f MB, shards %+.1f MB (bar: flat, at most %d MB)\n", mb(uint64(max(r.GrowGate, 0))), mb(uint64(max(r.GrowShards, 0))), downloadRoom>>20)
}
