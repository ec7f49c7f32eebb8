package slipswitch_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// serve serves HTTP on a listener until the test is over.
func serve(t *testing.T, listener net.Listener, handler http.HandlerFunc, protocols func(*http.Protocols)) {
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols)}
	protocols(server.Protocols)
	var running sync.WaitGroup
	running.Go(func() { server.Serve(listener) })
	t.Cleanup(func() {
		server.Close()
		running.Wait()
	})
}

// TestUnix: plain requests and tunnels over a Unix socket.
func TestUnix(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ide.sock")
	listener, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	var connections atomic.Int64
	serve(t, listener, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			io.WriteString(w, r.Host+" "+r.RequestURI)
			return
		}
		connections.Add(1)
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(conn, switching()+"\x81\x05hello")
		go func() {
			io.Copy(io.Discard, buffered)
			conn.Close()
		}()
	}, func(p *http.Protocols) { p.SetHTTP1(true) })
	g := startGateway(t, &slipswitch.Proxy{}, slipswitch.Route{Path: "/a", StripPath: true, Upstreams: slipswitch.To("unix:" + name)})
	if a := g.get("/a/x?y"); a.body != host+" /x?y" {
		t.Errorf("got %s %q", a.Status, a.body)
	}
	g.put(slipswitch.Route{Path: "/any", Host: "*.example.com", Upstreams: slipswitch.To("unix://" + name)})
	if a := g.get("/any/x"); a.body != host+" /any/x" {
		t.Errorf("got %s %q", a.Status, a.body)
	}
	client := g.dial()
	client.send(handshake("/a/x"))
	if a := client.answer("GET"); a.StatusCode != 101 {
		t.Fatalf("got %s", a.Status)
	}
	client.expect("\x81\x05hello")
	client.Close()
	if r := g.report(); r.Upstream != "unix:"+name {
		t.Errorf("the report names %q", r.Upstream)
	}
	g.put(slipswitch.Route{Path: "/gone", Upstreams: slipswitch.To("unix:" + name + "x")})
	if a := g.get("/gone"); a.StatusCode != 502 || strings.Contains(a.body, name) {
		t.Errorf("got %s %q; want 502", a.Status, a.body)
	}
}

// TestH2C: what speaks HTTP/2 without TLS is spoken to so, with trailers and
// both ways at once.
func TestH2C(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, listener, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			t.Errorf("the upstream was spoken to by %s, TE: %q", r.Proto, r.Header.Get("Te"))
		}
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		http.NewResponseController(w).Flush() // the client waits for it before it sends
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			http.NewResponseController(w).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "7")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "late")
	}, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	g := startGateway(t, &slipswitch.Proxy{}, slipswitch.Route{Path: "/", Upstreams: slipswitch.To("h2c://" + listener.Addr().String())})
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	body, send := io.Pipe()
	request, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+g.addr+"/echo.Echo/Both", body)
	request.Host = host
	request.Header.Set("Te", "trailers")
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got := make([]byte, 5)
	for range 3 {
		io.WriteString(send, "hello")
		if _, err := io.ReadFull(response.Body, got); err != nil || string(got) != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	send.Close()
	if rest, err := io.ReadAll(response.Body); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v", rest, err)
	}
	if response.ProtoMajor != 2 || response.Trailer.Get("Grpc-Status") != "7" || response.Trailer.Get("Grpc-Message") != "late" {
		t.Errorf("got %s, trailer %q", response.Proto, response.Trailer)
	}
}

// An authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.cert = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}).Leaf
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(c *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey, a.key = c, key, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestClientCertificates: each route has its profile's authority, server name and
// client certificate, over connections that no other profile's routes use.
func TestClientCertificates(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			who = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		if r.Header.Get("Upgrade") != "" {
			w.Header().Set("X-Who", who)
			w.WriteHeader(403)
			return
		}
		io.WriteString(w, who+" "+r.TLS.ServerName)
	}))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{ca.sign(&x509.Certificate{DNSNames: []string{"ide.internal"}})},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: ca.pool,
	}
	server.Config.ErrorLog = nil
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	client := func(name string) []tls.Certificate {
		return []tls.Certificate{ca.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})}
	}
	p := &slipswitch.Proxy{TLSProfiles: map[string]*tls.Config{
		"ada":      {RootCAs: ca.pool, ServerName: "ide.internal", Certificates: client("ada")},
		"grace":    {RootCAs: ca.pool, ServerName: "ide.internal", Certificates: client("grace")},
		"plain":    {RootCAs: ca.pool, ServerName: "ide.internal"},
		"name":     {RootCAs: ca.pool, ServerName: "other.internal"},
		"stranger": {RootCAs: stranger.pool, ServerName: "ide.internal"},
	}}
	g := startGateway(t, p)
	want := map[string]string{"ada": "ada", "grace": "grace", "plain": "nobody", "name": "", "stranger": "", "": "", "missing": ""}
	for name := range want {
		g.put(slipswitch.Route{Path: "/" + name + "/", TLSProfile: name, Upstreams: slipswitch.To(server.URL)})
	}
	for range 3 { // the connections of before are there now
		for name, who := range want {
			a := g.get("/" + name + "/")
			if who == "" && a.StatusCode != 502 || who != "" && a.body != who+" ide.internal" {
				t.Errorf("%q: got %s %q; want %q", name, a.Status, a.body, who)
			}
			a = g.do(handshake("/" + name + "/"))
			if who == "" && a.StatusCode != 502 || who != "" && (a.StatusCode != 403 || a.Header.Get("X-Who") != who) {
				t.Errorf("upgrade, %q: got %s %q; want %q", name, a.Status, a.Header.Get("X-Who"), who)
			}
		}
	}
}

// TestErrorOfDialContext: a status that cannot be sent is none.
func TestErrorOfDialContext(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{0: 502, 99: 502, 101: 502, 200: 502, 402: 402, 1000: 502} {
		g := startGateway(t, &slipswitch.Proxy{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, &slipswitch.Error{Status: status, Reason: "no"}
		}}, slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://ide.internal")})
		if a := g.get("/"); a.StatusCode != want {
			t.Errorf("status %d: got %s; want %d", status, a.Status, want)
		}
		if a := g.do(handshake("/")); a.StatusCode != want {
			t.Errorf("status %d: the handshake got %s; want %d", status, a.Status, want)
		}
	}
}

// TestDialContext: the caller's dialer is asked for every connection.
func TestDialContext(t *testing.T) {
	u := answering(t, ok("hello", "Connection: close"))
	var networks []string
	p := &slipswitch.Proxy{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		networks = append(networks, network+" "+address)
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > 3*time.Second {
			t.Errorf("the deadline is %v, %v; want DialTimeout", deadline, ok)
		}
		return new(net.Dialer).DialContext(ctx, "tcp", u.listener.Addr().String())
	}}
	g := startGateway(t, p, slipswitch.Route{Path: "/a", DialTimeout: 3 * time.Second, Upstreams: slipswitch.To("http://ide.internal")},
		slipswitch.Route{Path: "/b", DialTimeout: 3 * time.Second, Upstreams: slipswitch.To("unix:/run/ide.sock")})
	g.get("/a")
	g.do(handshake("/a"))
	g.get("/b")
	g.do(handshake("/b"))
	if got := strings.Join(networks, ", "); got != "tcp ide.internal:80, tcp ide.internal:80, unix /run/ide.sock, unix /run/ide.sock" {
		t.Errorf("dialled %s", got)
	}
}

// TestLateDial is 504, also where the caller's dialer says it in words of its own.
func TestLateDial(t *testing.T) {
	g := startGateway(t, &slipswitch.Proxy{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, io.ErrNoProgress
	}}, slipswitch.Route{Path: "/a", DialTimeout: 10 * time.Millisecond, Upstreams: slipswitch.To("http://ide.internal")})
	for _, raw := range []string{request("GET", "/a"), handshake("/a")} {
		if a := g.do(raw); a.StatusCode != 504 {
			t.Errorf("got %s; want 504", a.Status)
		}
	}
}

// TestDialsAreBounded: upstreams that do not answer take no more than their
// share, of plain requests and of handshakes; what is connected is not counted.
func TestDialsAreBounded(t *testing.T) {
	u := startUpstream(t, func(received) string { return ok("hello", "Connection: close") })
	for _, test := range []struct {
		name   string
		limits slipswitch.Limits
		other  int // what another route is answered meanwhile
	}{
		{"all", slipswitch.Limits{Dials: 2}, 503},
		{"route", slipswitch.Limits{DialsPerRoute: 2}, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			release := make(chan struct{})
			var dialling atomic.Int64
			p := &slipswitch.Proxy{Limits: test.limits, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if address == "slow.example.:80" {
					dialling.Add(1)
					defer dialling.Add(-1)
					select {
					case <-release:
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				return new(net.Dialer).DialContext(ctx, network, u.listener.Addr().String())
			}}
			g := startGateway(t, p, slipswitch.Route{Path: "/slow", Upstreams: slipswitch.To("http://slow.example.")}, route("/fast", u))
			plain, upgrade := g.dial(), g.dial()
			plain.send(request("GET", "/slow"))
			upgrade.send(handshake("/slow"))
			until(t, "both are dialled", func() bool { return dialling.Load() == 2 })
			for _, raw := range []string{request("GET", "/slow"), handshake("/slow")} {
				if a := g.do(raw); a.StatusCode != 503 || a.Header.Get("Retry-After") != "1" {
					t.Errorf("the third: got %s", a.Status)
				}
			}
			if a := g.get("/fast"); a.StatusCode != test.other {
				t.Errorf("another route: got %s; want %d", a.Status, test.other)
			}
			close(release)
			for _, client := range []*peer{plain, upgrade} {
				if a := client.answer("GET"); a.StatusCode != 200 {
					t.Errorf("got %s", a.Status)
				}
			}
			if a := g.get("/slow"); a.StatusCode != 200 {
				t.Errorf("afterwards: got %s", a.Status)
			}
		})
	}
}
