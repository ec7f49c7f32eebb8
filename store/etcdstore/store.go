// Package etcdstore keeps routes in etcd, where many gateways share them.
package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// The keys, all after the prefix:
//
//	routes/OWNER/KEY          the route as JSON; KEY is Key.String
//	routes/OWNER/KEY active   when the route was last used
//	routes.last               written with every batch, so that each has an event
//	routes.confirmed          the revision up to which deletions are confirmed
//	gateways/NAME             the revision that the gateway had when last asked; leased
//	waits/ID                  a revision that a WaitAll waits for; leased
//
// OWNER is percent-encoded. A canonical key has no space, so the "active" key
// comes right after its route, and one range covers both.
const (
	routesDir    = "routes/"
	lastKey      = "routes.last"
	confirmedKey = "routes.confirmed"
	gatewaysDir  = "gateways/"
	waitsDir     = "waits/"

	activeSuffix = " active"
	afterSuffix  = "!" // the next after a space
	watched      = "routes"
)

// A Store is a prefix of an etcd cluster's keys. It is a [store.SharedStore],
// a [store.ActivityStore] and a [store.LeaseStore]. Only Client is required. The
// fields must not be changed after the first call. The methods may be called
// concurrently.
//
// A batch is one transaction. By default servers accept 128 operations and 1.5 MiB
// in one: 127 routes to change or delete. A larger batch is store.ErrTooLarge. A
// put of an equal route does not count, so that all routes can be put again and
// again, nor does a deletion of a route that is not there.
//
// A watch notices that the cluster was restored to a lower revision, if it is
// connected, or reconnects while the revision still is lower. A watch that
// reconnects later notices only if the backup was restored with etcdutl's
// --bump-revision and --mark-compacted: use them.
//
// Permissions are set in the cluster. A gateway must read and write the prefix. A
// gateway that never writes routes must only read it. A program that registers
// routes must only write below routes/.
type Store struct {
	Client *clientv3.Client

	// Prefix is the prefix of all keys. Empty means "/slipswitch/".
	Prefix string

	// MaxOps is the greatest number of operations in a transaction: the servers'
	// --max-txn-ops. Zero means 128.
	MaxOps int

	// Timeout bounds the wait for an answer of the cluster. Zero means 5 s.
	Timeout time.Duration

	// Check is the time between two checks of a watch that the cluster has not been
	// replaced or restored. Zero means 3 s.
	Check time.Duration
}

// Dial returns a store on a client of its own. In the configuration, Endpoints is
// required; TLS, Username and Password are those of the cluster. Zero keepalive
// and backoff settings are set so that a dead connection is found within 6 s, and
// a member that is back within 2 s. Without a Logger nothing is logged. Dial does
// not wait for the cluster. Endpoints must be all https or all http, as the
// password is sent to any of them.
func Dial(config clientv3.Config) (*Store, error) {
	secure := func(endpoint string) bool {
		return strings.HasPrefix(endpoint, "https://") || strings.HasPrefix(endpoint, "unixs://")
	}
	insecure := func(endpoint string) bool {
		return strings.HasPrefix(endpoint, "http://") || strings.HasPrefix(endpoint, "unix://")
	}
	if slices.ContainsFunc(config.Endpoints, secure) && slices.ContainsFunc(config.Endpoints, insecure) {
		return nil, errors.New("etcdstore: the endpoints must be all https, or all http")
	}
	if config.DialKeepAliveTime == 0 {
		config.DialKeepAliveTime, config.DialKeepAliveTimeout = 3*time.Second, 3*time.Second
		config.PermitWithoutStream = true
	}
	if config.DialTimeout == 0 && config.DialOptions == nil {
		pace := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
		config.DialOptions = []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: pace, MinConnectTimeout: time.Second})}
	}
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("etcdstore: %w", err)
	}
	return &Store{Client: client}, nil
}

// Close closes the client. Watches end, and writes fail, with
// store.ErrUnavailable.
func (s *Store) Close() error {
	if err := s.Client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcdstore: %w", err)
	}
	return nil
}

func (s *Store) prefix() string {
	if s.Prefix == "" {
		return "/slipswitch/"
	}
	return s.Prefix
}

func (s *Store) maxOps() int {
	if s.MaxOps == 0 {
		return 128
	}
	return s.MaxOps
}

func (s *Store) timeout() time.Duration {
	if s.Timeout == 0 {
		return 5 * time.Second
	}
	return s.Timeout
}

func (s *Store) check() time.Duration {
	if s.Check == 0 {
		return 3 * time.Second
	}
	return s.Check
}

// routeKey returns the etcd key of a route.
func (s *Store) routeKey(owner string, key slipswitch.Key) string {
	return s.prefix() + routesDir + url.PathEscape(owner) + "/" + key.String()
}

// parseKey parses a key below routes/.
func (s *Store) parseKey(etcdKey string) (owner string, key slipswitch.Key, active bool, err error) {
	rest, _ := strings.CutPrefix(etcdKey, s.prefix()+routesDir)
	owner, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return "", key, false, errors.New("etcdstore: the key names no owner")
	}
	if owner, err = url.PathUnescape(owner); err != nil {
		return "", key, false, fmt.Errorf("etcdstore: the key's owner: %w", err)
	}
	rest, active = strings.CutSuffix(rest, activeSuffix)
	if key, err = slipswitch.ParseKey(rest); err != nil {
		return owner, slipswitch.Key{}, active, err
	}
	if canonical, err := key.Canonical(); err != nil || canonical != key {
		return owner, slipswitch.Key{}, active, fmt.Errorf("etcdstore: the key must be spelt %q", canonical)
	}
	return owner, key, active, nil
}

// failure wraps the error of a request. The client's own errors do not always
// name the server.
func (s *Store) failure(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrRequestTooLarge):
		return fmt.Errorf("%w: etcd: %w: divide the batch", store.ErrTooLarge, err)
	}
	return fmt.Errorf("%w: etcd at %s: %w", store.ErrUnavailable, strings.Join(s.Client.Endpoints(), ", "), err)
}
