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
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/youmark/pkcs8"
)

// certificates are an authority and one certificate of it, which is for servers
// and clients, in files and in memory.
type certificates struct {
	ca, cert, key           string
	encrypted, encryptedOld string // the key again, with the passphrase "open sesame"
	pair                    tls.Certificate
	pool                    *x509.CertPool
}

func makeCertificates(t *testing.T) *certificates {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, blocks ...*pem.Block) string {
		t.Helper()
		var text []byte
		for _, block := range blocks {
			text = append(text, pem.EncodeToMemory(block)...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	make := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			parent, signer = template, key
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	authority, authorityKey := make(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	cert, key := make(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "chp"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, authority, authorityKey)
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := pkcs8.MarshalPrivateKey(key, []byte("open sesame"), nil)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 such files exist
	old, err := x509.EncryptPEMBlock(rand.Reader, "EC PRIVATE KEY", sec1, []byte("open sesame"), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	c := &certificates{pool: x509.NewCertPool()}
	c.pool.AddCert(authority)
	c.pair = tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	c.ca = write("ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw})
	c.cert = write("cert.pem", &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	c.key = write("key.pem", &pem.Block{Type: "PRIVATE KEY", Bytes: plain})
	c.encrypted = write("encrypted.pem", &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: encrypted})
	c.encryptedOld = write("encrypted-old.pem", old)
	return c
}

// client is the configuration of who trusts the authority; own may be nil.
func (c *certificates) client(own *tls.Certificate) *tls.Config {
	config := &tls.Config{RootCAs: c.pool, ServerName: "127.0.0.1"}
	if own != nil {
		config.Certificates = []tls.Certificate{*own}
	}
	return config
}
