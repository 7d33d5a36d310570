package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

var (
	errClosed       = errors.New("this host is shutting down")
	errTooMany      = errors.New("this worker has too many connections to upstreams open or under way; try again")
	errTooManyConns = errors.New("this host has too many connections to upstreams open; try again")
)

func tlsConfig(roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// dial connects to addr, "host:port", for the tenant. Each address that the name has is judged; the
// ones that are allowed are tried one after the other.
func (c *client) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, port, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	if err := c.judge.Host(host, port); err != nil {
		return nil, err
	}
	// net/http goes on dialling when the subrequest is given up, and gives the connection to the next
	// one: what bounds subrequests does not bound dials.
	if c.held.Add(1) > int64(max(tenantConns, c.e.opt.Conns/8)) {
		c.held.Add(-1)
		return nil, errTooMany
	}
	conn, err := c.reach(ctx, host, port)
	if err != nil {
		c.held.Add(-1)
		return nil, err
	}
	return conn, nil
}

// reach looks the host up and connects to one of its addresses.
func (c *client) reach(ctx context.Context, host string, port uint16) (net.Conn, error) {
	found, err := c.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	var allowed []netip.AddrPort
	var refusal error
	for _, a := range found {
		ap := netip.AddrPortFrom(a, port)
		if err := c.judge.Address(host, ap); err != nil {
			if refusal == nil {
				refusal = err
			}
			continue
		}
		allowed = append(allowed, ap)
	}
	if len(allowed) == 0 {
		return nil, refusal
	}
	if err := c.e.take(ctx); err != nil {
		return nil, err
	}
	d := &net.Dialer{
		// The address of the system call itself: whatever the code above believed, this one is dialled.
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			if network != "tcp4" && network != "tcp6" {
				return fmt.Errorf("%s is no network to reach an upstream by", network)
			}
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return c.judge.Address(host, ap)
		},
		KeepAlive: 30 * time.Second,
	}
	var failure error
	for i, ap := range allowed {
		one, cancel := context.WithTimeout(ctx, c.e.opt.ConnectTimeout/time.Duration(min(len(allowed)-i, 3)))
		conn, err := d.DialContext(one, "tcp", ap.String())
		cancel()
		if err == nil {
			return &counted{Conn: conn, release: sync.OnceFunc(func() { c.e.conns.Add(-1); c.held.Add(-1) })}, nil
		}
		if failure == nil {
			failure = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	c.e.conns.Add(-1)
	return nil, failure
}

// counted is a connection that says when it is gone.
type counted struct {
	net.Conn
	release func()
}

func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// tenantConns is what a tenant may have of connections even where an eighth of all is less.
const tenantConns = 16

// maxAddresses bounds what of a name's addresses is looked at.
const maxAddresses = 16

func (c *client) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.e.opt.ConnectTimeout)
	defer cancel()
	end, err := c.e.names.begin(ctx, c.tenant)
	if err != nil {
		return nil, err
	}
	defer end()
	found, err := c.e.opt.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for i := range found {
		if found[i].Is4In6() {
			found[i] = found[i].Unmap() // the resolver's form of an A record, not what somebody wrote
		}
	}
	if len(found) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	return found[:min(len(found), maxAddresses)], nil
}

func splitAddr(addr string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("port %q", p)
	}
	return host, uint16(n), nil
}
