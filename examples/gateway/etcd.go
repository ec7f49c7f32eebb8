package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/slipswitch/slipswitch/store/etcdstore"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// openEtcd opens URL[,URL…][?OPTION=VALUE&…][#PREFIX]. The options are files in
// PEM (ca for the cluster's authority, cert and key for the gateway's own
// certificate), user and password-file. A renewed certificate is used from the
// next connection on.
func openEtcd(where string) (closer, error) {
	where, prefix, _ := strings.Cut(where, "#")
	urls, query, _ := strings.Cut(where, "?")
	config := clientv3.Config{Endpoints: strings.Split(urls, ",")}
	secure := false
	for _, endpoint := range config.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("etcd: %q must be a URL such as http://127.0.0.1:2379", endpoint)
		}
		if u.User != nil { // errors name the URLs
			return nil, errors.New("etcd: a URL must not have a user: use the options user and password-file")
		}
		secure = secure || u.Scheme == "https"
	}
	options, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("etcd: %q must be options such as ca=FILE&user=NAME: %w", query, err)
	}
	for name, values := range options {
		switch name {
		case "ca", "cert", "key", "user", "password-file":
		default:
			return nil, fmt.Errorf("etcd: option %q must be one of ca, cert, key, user, password-file", name)
		}
		if len(values) > 1 || values[0] == "" {
			return nil, fmt.Errorf("etcd: option %s must be given once, with a value", name)
		}
	}
	if config.TLS, err = etcdTLS(options, secure); err != nil {
		return nil, err
	}
	config.Username = options.Get("user")
	if file := options.Get("password-file"); file != "" {
		password, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("etcd: %w", err)
		}
		config.Password = strings.TrimRight(string(password), "\r\n")
	}
	if (config.Username == "") != (config.Password == "") {
		return nil, errors.New("etcd: user and password-file go together")
	}
	s, err := etcdstore.Dial(config)
	if err != nil {
		return nil, err
	}
	s.Prefix = prefix
	return s, nil
}

// etcdTLS returns nil if no URL is secure. Then there must be no files for TLS.
func etcdTLS(options url.Values, secure bool) (*tls.Config, error) {
	ca, cert, key := options.Get("ca"), options.Get("cert"), options.Get("key")
	switch {
	case !secure && ca+cert+key != "":
		return nil, errors.New("etcd: ca, cert and key are for https URLs")
	case (cert == "") != (key == ""):
		return nil, errors.New("etcd: cert and key go together")
	case !secure:
		return nil, nil
	}
	config := new(tls.Config)
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("etcd: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd: %s has no certificate in PEM", ca)
		}
	}
	if cert != "" {
		load := func() (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(cert, key)
			return &c, err
		}
		if _, err := load(); err != nil {
			return nil, fmt.Errorf("etcd: %w", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return config, nil
}
