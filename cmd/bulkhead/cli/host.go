package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bulkhead/policy/doctree"
)

// maxAnswer bounds an answer of the admin API, bytes. 100,000 tenants take some 40 MB.
const maxAnswer = 256 << 20

// hostFlags find a running host.
type hostFlags struct {
	admin, data string
	json        bool
}

func (f *hostFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.admin, "admin", "", "`PATH` of the host's admin socket")
	c.Flags().StringVar(&f.data, "data", "", "the host's data `DIR`; default: "+defaultData())
}

func (f *hostFlags) addJSON(c *cobra.Command) {
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
}

// socket is the path of the admin socket.
func (f *hostFlags) socket() string {
	switch {
	case f.admin != "":
		return strings.TrimPrefix(f.admin, "unix:")
	case f.data != "":
		return filepath.Join(f.data, "admin.sock")
	}
	return filepath.Join(defaultData(), "admin.sock")
}

// request asks the host; the caller closes the body. An answer that is not 2xx is an error.
func (f *hostFlags) request(ctx context.Context, method, path string) (*http.Response, error) {
	return f.send(ctx, method, path, nil)
}

// send is request with a body.
func (f *hostFlags) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	sock := f.socket()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", sock)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, unreachable(sock, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var answer struct{ Error string }
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(b, &answer) != nil || answer.Error == "" {
		answer.Error = "the host answered " + resp.Status
	}
	lines := strings.Split(answer.Error, "\n")
	for i := range lines {
		lines[i] = doctree.Printable(lines[i])
	}
	return nil, errors.New(strings.Join(lines, "\n"))
}

// unreachable says why there is no host at a socket and what to do.
func unreachable(sock string, err error) error {
	remedy := "is it running? Name another one with --data DIR or --admin PATH"
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		remedy = "only the user it runs as, and root, may ask it"
	case errors.Is(err, syscall.ECONNREFUSED):
		remedy = "a host that is gone left its socket behind; start one, or name another with --data DIR or --admin PATH"
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no host at %s: %s", sock, remedy)
	}
	return fmt.Errorf("no answer from the host at %s: %w; %s", sock, err, remedy)
}

// get decodes the host's answer.
func (f *hostFlags) get(ctx context.Context, method, path string, into any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	resp, err := f.request(ctx, method, path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("the host's answer: %w", err)
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("the host's answer is larger than %d bytes", maxAnswer)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return nil, fmt.Errorf("the host's answer is not understood (is it of another version?): %w", err)
	}
	return b, nil
}
