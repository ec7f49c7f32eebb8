package main

import (
	"errors"
	"strings"

	"github.com/slipswitch/slipswitch/store/etcdstore"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// openEtcd opens URL[,URL…][#PREFIX]. User and password, and certificates, are
// for whoever embeds the store: etcdstore takes the client's whole configuration.
func openEtcd(where string) (closer, error) {
	urls, prefix, _ := strings.Cut(where, "#")
	if urls == "" {
		return nil, errors.New("etcd: name at least one URL, such as http://127.0.0.1:2379")
	}
	s, err := etcdstore.Dial(clientv3.Config{Endpoints: strings.Split(urls, ",")})
	if err != nil {
		return nil, err
	}
	s.Prefix = prefix
	return s, nil
}
