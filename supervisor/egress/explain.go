package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"bulkhead/ipc/gatewayside"
	rules "bulkhead/policy/egress"
)

// explain is an error as the tenant gets to read it: what went wrong with which host, and nothing of
// name servers, of addresses behind names, or of this host.
func explain(err error) string {
	var refusal *rules.Refusal
	var dns *net.DNSError
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &refusal):
		return refusal.Error()
	case errors.Is(err, gatewayside.ErrReleased):
		return gatewayside.ErrReleased.Error()
	case errors.As(err, &dns):
		switch {
		case dns.IsNotFound:
			return fmt.Sprintf("%s has no address: no such host", shorten(dns.Name))
		case dns.IsTimeout:
			return fmt.Sprintf("%s: the name servers do not answer", shorten(dns.Name))
		}
		return fmt.Sprintf("%s cannot be resolved", shorten(dns.Name))
	case errors.As(err, &unknown):
		return "the upstream's certificate is signed by an unknown authority"
	case errors.As(err, &cert):
		return "the upstream's certificate is not valid: " + shorten(cert.Err.Error())
	case errors.As(err, &op):
		what := "the connection failed"
		if op.Op == "dial" {
			what = "cannot connect"
		}
		if op.Timeout() {
			return what + ": timed out"
		}
		return what + ": " + shorten(op.Err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	}
	return shorten(err.Error())
}

// shorten makes text of anybody fit for a message: printable ASCII, at most 300 bytes.
func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 300)]
}
