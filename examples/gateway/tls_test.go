package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// A renewed certificate is used without a restart, and not before its key is
// there; open sockets live on.
func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, key := newCertificate(t, 1)
	write(certFile, cert)
	write(keyFile, key)
	g := start(t, "-tls-cert="+certFile, "-tls-key="+keyFile)
	server := newIDE(t)
	g.put(slipswitch.Route{Path: "/", Upstreams: slipswitch.To(server.URL)})

	trustAll := &tls.Config{InsecureSkipVerify: true}
	serial := func() int64 {
		t.Helper()
		conn, err := tls.Dial("tcp", g.public, trustAll)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	transport := &http.Transport{TLSClientConfig: trustAll}
	defer transport.CloseIdleConnections()
	conn := dial(t, "wss://"+g.public+"/echo", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	echoes(t, conn)
	if got := serial(); got != 1 {
		t.Fatalf("certificate %d; want 1", got)
	}

	cert, key = newCertificate(t, 2)
	write(certFile, cert)
	programtest.Eventually(t, "the gateway looks at half a change", func() bool {
		if got := serial(); got != 1 {
			t.Fatalf("certificate %d while its key is missing; want 1", got)
		}
		failed, _ := g.logged("certificate could not be read again, the last one stays")
		return len(failed) == 1
	})
	write(keyFile, key)
	programtest.Eventually(t, "the new certificate is used", func() bool { return serial() == 2 })
	echoes(t, conn)

	// HTTP/2 is offered, and the forwarded scheme is right.
	h2 := &http.Transport{TLSClientConfig: trustAll, ForceAttemptHTTP2: true}
	defer h2.CloseIdleConnections()
	response, err := (&http.Client{Transport: h2}).Get("https://" + g.public + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.ProtoMajor != 2 {
		t.Errorf("%s; want HTTP/2", response.Proto)
	}
	if proto := headersIn(t, response).Get("X-Forwarded-Proto"); proto != "https" {
		t.Errorf("X-Forwarded-Proto: %q; want https", proto)
	}
}

// newCertificate returns a certificate and its key in PEM.
func newCertificate(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: "gateway"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}
