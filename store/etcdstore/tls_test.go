package etcdstore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/etcdstore"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Without the certificate that the cluster wants nobody gets in.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	roots, certificate := certify(t, dir)
	m := &member{t: t, Name: "m", Dir: filepath.Join(dir, "m"), Peer: freeURL(t), Token: "tls", Certificates: dir}
	m.Client = strings.Replace(freeURL(t), "http://", "https://", 1)
	m.Cluster = "m=" + m.Peer
	startAll(m)
	s := dialAs(t, clientv3.Config{Endpoints: []string{m.Client}, TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}})
	g := newGateway(t, s)
	if _, err := g.Apply(t.Context(), "", put("/a", "up")); err != nil {
		t.Error(err)
	}
	stranger := dialAs(t, clientv3.Config{Endpoints: []string{m.Client}, TLS: &tls.Config{RootCAs: roots}})
	ctx, cancel := contextFor(t, time.Second)
	defer cancel()
	if _, err := stranger.Write(ctx, "", put("/b", "up")); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("without a certificate: got %v; want ErrUnavailable", err)
	}
}

// certify writes a certificate for both sides, its own authority, to a
// directory.
func certify(t *testing.T, dir string) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "etcd"},
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err := errors.Join(err, os.WriteFile(filepath.Join(dir, "cert.pem"), certPEM, 0o600), os.WriteFile(filepath.Join(dir, "key.pem"), keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return roots, pair
}

// A password is sent to whichever endpoint answers: one without TLS among others
// would give it away.
func TestMixedEndpoints(t *testing.T) {
	for _, tt := range []struct {
		endpoints string
		ok        bool
	}{
		{"https://a:1 https://b:1", true},
		{"http://a:1 http://b:1", true},
		{"a:1 https://b:1", true}, // with the configuration's TLS
		{"https://a:1 http://b:1", false},
		{"http://a:1 unixs:///b", false},
	} {
		s, err := etcdstore.Dial(clientv3.Config{Endpoints: strings.Fields(tt.endpoints), TLS: new(tls.Config)})
		if (err == nil) != tt.ok {
			t.Errorf("%s: got %v; want ok %v", tt.endpoints, err, tt.ok)
		}
		if err == nil {
			s.Close()
		}
	}
}
