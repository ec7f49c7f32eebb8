package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/youmark/pkcs8"
)

// A serverTLS is the TLS settings of one server.
type serverTLS struct {
	key, cert, ca      string // files
	passphrase         string // of the key; empty: none
	requestCert        bool
	rejectUnauthorized bool // has no effect, since requestCert alone rejects them, too

	current atomic.Pointer[tls.Config] // as the files were when they were last read
}

// A clientTLS is the TLS settings for upstreams.
type clientTLS struct {
	key, cert, ca string // files
	config        *tls.Config
	pair          atomic.Pointer[tls.Certificate] // as the files were when they were last read
}

// server returns the configuration of a server. Nil means that it serves without
// TLS.
func (o *options) server(t *serverTLS, prefix string) (*tls.Config, error) {
	if t.key+t.cert == "" {
		return nil, nil
	}
	if t.key == "" || t.cert == "" {
		return nil, fmt.Errorf("--%sssl-key and --%sssl-cert go together", prefix, prefix)
	}
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.current.Load(), nil }}, o.load(t)
}

// load reads a server's files, if it has any. On an error nothing changes.
func (o *options) load(t *serverTLS) error {
	if t.key == "" {
		return nil
	}
	config, err := o.common()
	if err != nil {
		return err
	}
	pair, err := loadPair(t.cert, t.key, t.passphrase)
	if err != nil {
		return err
	}
	config.Certificates = []tls.Certificate{pair}
	if t.ca != "" {
		if config.ClientCAs, err = loadCAs(t.ca); err != nil {
			return err
		}
	}
	if t.requestCert {
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	config.NextProtos = []string{"http/1.1"} // the servers speak nothing else
	t.current.Store(config)
	return nil
}

// client makes the configuration for upstreams.
func (o *options) client() error {
	config, err := o.common()
	if err != nil {
		return err
	}
	t := &o.clientSSL
	config.InsecureSkipVerify = o.insecure
	if (t.key == "") != (t.cert == "") {
		return errors.New("--client-ssl-key and --client-ssl-cert go together")
	}
	if t.key != "" {
		if err := t.load(); err != nil {
			return err
		}
		config.GetClientCertificate = t.certificate
	}
	if t.ca != "" {
		if config.RootCAs, err = loadCAs(t.ca); err != nil {
			return err
		}
	}
	t.config = config
	return nil
}

// load reads the certificate, if there is one. On an error nothing changes.
func (t *clientTLS) load() error {
	if t.key == "" {
		return nil
	}
	pair, err := loadPair(t.cert, t.key, "")
	if err == nil {
		t.pair.Store(&pair)
	}
	return err
}

// certificate is for the GetClientCertificate of a tls.Config. It sends no
// certificate that the upstream would not accept.
func (t *clientTLS) certificate(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if pair := t.pair.Load(); asked.SupportsCertificate(pair) == nil {
		return pair, nil
	}
	return new(tls.Certificate), nil
}

// common returns the configuration from --ssl-protocol and --ssl-ciphers.
func (o *options) common() (*tls.Config, error) {
	config := new(tls.Config)
	if o.sslProtocol != "" {
		version, ok := protocols[o.sslProtocol]
		if !ok {
			return nil, fmt.Errorf("--ssl-protocol %q is not supported: use TLSv1_2, TLSv1_3, TLSv1_1, TLSv1, or TLS for the default", o.sslProtocol)
		}
		config.MinVersion, config.MaxVersion = version, version
	}
	var err error
	config.CipherSuites, err = ciphers(o.sslCiphers)
	return config, err
}

var protocols = map[string]uint16{
	"TLS": 0, "SSLv23": 0, // OpenSSL's name for any version
	"TLSv1": tls.VersionTLS10, "TLSv1_1": tls.VersionTLS11, "TLSv1_2": tls.VersionTLS12, "TLSv1_3": tls.VersionTLS13,
}

// ciphers returns the suites of a list of OpenSSL names. Suites of TLS 1.3 cannot
// be selected. Exclusions are ignored: Go does not offer what they exclude.
func ciphers(list string) (suites []uint16, err error) {
	if list == "" {
		return nil, nil
	}
	known := make(map[string]uint16)
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		known[opensslName(suite.Name)] = suite.ID
	}
	for name := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ':' || r == ',' || r == ' ' }) {
		switch id, ok := known[name]; {
		case ok:
			suites = append(suites, id)
		case name == "HIGH" || name == "DEFAULT":
			for _, suite := range tls.CipherSuites() {
				suites = append(suites, suite.ID)
			}
		case name[0] != '!' && name[0] != '-' && name[0] != '@' && !strings.HasPrefix(name, "DHE-"):
			return nil, fmt.Errorf("--ssl-ciphers: %q is not supported: name suites such as ECDHE-RSA-AES128-GCM-SHA256, or HIGH", name)
		}
	}
	if len(suites) == 0 {
		return nil, fmt.Errorf("--ssl-ciphers %q has no suite that is supported", list)
	}
	return suites, nil
}

// opensslName returns the OpenSSL name of a suite such as
// TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256.
func opensslName(name string) string {
	name = strings.NewReplacer("TLS_RSA_WITH_", "", "TLS_", "", "_WITH", "", "AES_128_CBC", "AES128", "AES_256_CBC", "AES256",
		"AES_128", "AES128", "AES_256", "AES256", "CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305", "3DES_EDE_CBC", "DES_CBC3").Replace(name)
	return strings.ReplaceAll(name, "_", "-")
}

// loadPair reads a certificate chain and its key, which may be encrypted.
func loadPair(certFile, keyFile, passphrase string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	if key, err = decrypted(key, passphrase); err == nil {
		var pair tls.Certificate
		if pair, err = tls.X509KeyPair(cert, key); err == nil {
			return pair, nil
		}
	}
	return tls.Certificate{}, fmt.Errorf("%s with %s: %w", certFile, keyFile, err)
}

// decrypted returns a PEM file with its key decrypted, which may be encrypted by
// PKCS #8 or in the old format of OpenSSL (RFC 1421).
func decrypted(file []byte, passphrase string) ([]byte, error) {
	for rest := file; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return file, nil // no key is encrypted
		}
		//lint:ignore SA1019 such files exist, and reading one's own is not a padding oracle
		old := x509.IsEncryptedPEMBlock(block)
		if !old && block.Type != "ENCRYPTED PRIVATE KEY" {
			continue
		}
		if passphrase == "" {
			return nil, errors.New("the key is encrypted: set CONFIGPROXY_SSL_KEY_PASSPHRASE, or CONFIGPROXY_API_SSL_KEY_PASSPHRASE for the API")
		}
		if old {
			//lint:ignore SA1019 as above
			der, err := x509.DecryptPEMBlock(block, []byte(passphrase))
			if err != nil {
				return nil, err
			}
			return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der}), nil
		}
		key, err := pkcs8.ParsePKCS8PrivateKey(block.Bytes, []byte(passphrase))
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
	}
}

func loadCAs(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	return pool, nil
}
