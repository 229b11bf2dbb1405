package webhook

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// errPrivate is of an address that whoever may choose a URL, or a name's address, must not reach through the server.
var errPrivate = errors.New("is of this machine or a private network, which --webhook-allow-private allows")

// newClient returns one that follows no redirects, uses no proxy and, unless that is allowed, connects to public
// addresses alone. That is asked of the very address that is connected to: a name is resolved once for a connection.
func newClient(allowPrivate bool, resolver *net.Resolver) *http.Client {
	d := net.Dialer{Timeout: 10 * time.Second, Resolver: resolver}
	if !allowPrivate {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err == nil && !public(to.Addr()) {
				err = fmt.Errorf("%v %w", to.Addr(), errPrivate)
			}
			return err
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: d.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
			IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// special are the networks that are not public and that netip has no word for (IANA's registries of special-purpose
// addresses), and those in whose addresses others may be.
var special = func() (networks []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
		"fec0::/10",
	} {
		networks = append(networks, netip.MustParsePrefix(s))
	}
	return networks
}()

// public tells whether an address is one of the whole network's.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, n := range special {
		if n.Contains(a) {
			return false
		}
	}
	return true
}
