package etcdstore_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/etcdstore"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// What goes wrong between one request of the store and the next.

// A stall holds back what the cluster says to watches, and nothing else.
type stall struct {
	mu   sync.Mutex
	held chan struct{} // closed when it ends; nil: nothing is held
}

func (s *stall) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = make(chan struct{})
}

func (s *stall) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.held)
	s.held = nil
}

func (s *stall) intercept(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := streamer(ctx, desc, conn, method, opts...)
	if err != nil || !strings.HasSuffix(method, "/Watch") {
		return stream, err
	}
	return &stalledStream{stream, s}, nil
}

type stalledStream struct {
	grpc.ClientStream
	stall *stall
}

func (s *stalledStream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	s.stall.mu.Lock()
	held := s.stall.held
	s.stall.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-s.Context().Done():
		}
	}
	return err
}

// Watches fall silent while all else works: the table stays, the status tells,
// and what is written is kept, if not routed.
func TestWatchStalled(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	direct := dial(t, members[0].Client)
	r := newRig(t, direct)
	var stall stall
	for range 2 {
		s := dialAs(t, clientv3.Config{Endpoints: []string{members[0].Client},
			DialOptions: []grpc.DialOption{grpc.WithChainStreamInterceptor(stall.intercept)}})
		r.add(follow(t, &store.Sync{Source: s, Router: new(slipswitch.Router), WatchTimeout: 3 * time.Second}))
	}
	for range 2 {
		stall.begin()
		ctx, cancel := contextFor(t, time.Second)
		revision, err := r.gateways[0].Apply(ctx, "", put("/stalled", "up"))
		cancel()
		if revision == 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write: got %d, %v; want its revision, and that it is not routed yet", revision, err)
		}
		for _, g := range r.gateways {
			r.outage(g)
			if got := g.Stale(); got < 2*time.Second {
				t.Errorf("stale for %v; want 3 s or so", got)
			}
		}
		if _, err := direct.Write(t.Context(), "", slipswitch.Change{Delete: &slipswitch.Key{Path: "/stalled"}}); err != nil {
			t.Fatal(err)
		}
		stall.end()
		r.equal()
		r.writes(r.gateways[1])
		r.equal()
	}
}

// An unreadable record, and another owner's claim to a route, hold back only
// themselves.
func TestInvalidAndClaimed(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	direct := dial(t, members[0].Client)
	r := newRig(t, direct, dial(t, members[0].Client), dial(t, members[0].Client))
	if _, err := direct.Client.Put(t.Context(), "/slipswitch/routes///0007", "{"); err != nil {
		t.Fatal(err)
	}
	if _, err := direct.Write(t.Context(), "other", put("/0008", "other")); err != nil {
		t.Fatal(err)
	}
	r.writes(r.gateways[0])
	for _, g := range r.gateways {
		g.await(func() bool {
			_, there := g.Router.Table().At(slipswitch.Key{Path: "/changing"})
			return there
		})
		for _, path := range []string{"/0006", "/0007", "/0008"} {
			e, ok := g.Router.Table().At(slipswitch.Key{Path: path})
			if !ok || e.Owner != "" || e.Route().Upstreams[0].URL != "http://up" {
				t.Errorf("%s: %+v; want it as it was", path, e)
			}
		}
		if q := g.Status().Quarantined; len(q) != 1 || q[0].Key.Path != "/0007" {
			t.Errorf("in quarantine are %+v; want /0007", q)
		}
	}
	for owner, change := range map[string]slipswitch.Change{"": put("/0007", "better"), "other": {Delete: &slipswitch.Key{Path: "/0008"}}} {
		if _, err := direct.Write(t.Context(), owner, change); err != nil {
			t.Fatal(err)
		}
	}
	r.equal()
}

// A txnGap is between a client's first transaction, by which a store looks at what
// stands, and the second, by which it changes that.
type txnGap struct {
	transactions int
	between      func()
}

func dialGap(t *testing.T, url string) (*etcdstore.Store, *txnGap) {
	gap := new(txnGap)
	return dialAs(t, clientv3.Config{Endpoints: []string{url},
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				if strings.HasSuffix(method, "/Txn") {
					if gap.transactions++; gap.transactions == 2 {
						gap.between()
					}
				}
				return invoke(ctx, method, request, reply, conn, opts...)
			})}}), gap
}

// Whatever is put or deleted between a write's look at what stands there and
// its transaction, the write is made, and the fields of a later version stay.
func TestWriteRaces(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	direct := dial(t, members[0].Client)
	const key = "/slipswitch/routes///a"
	s, gap := dialGap(t, members[0].Client)
	for _, test := range []struct {
		name    string
		between func()
		want    string
		txns    int
	}{
		{"nothing", func() {}, `{"path":"/a","upstreams":["http://0"]}`, 2},
		{"a later version's put", func() {
			direct.Client.Put(t.Context(), key, `{"path":"/a","upstreams":["http://x"],"shade":7}`)
		}, `{"path":"/a","shade":7,"upstreams":["http://1"]}`, 4},
		{"another of its puts", func() {
			direct.Client.Put(t.Context(), key, `{"path":"/a","upstreams":["http://x"],"shade":8}`)
		}, `{"path":"/a","shade":8,"upstreams":["http://2"]}`, 4},
		{"a deletion", func() { direct.Client.Delete(t.Context(), key) }, `{"path":"/a","upstreams":["http://3"]}`, 4},
	} {
		*gap = txnGap{between: test.between}
		version := string(test.want[strings.Index(test.want, "http://")+len("http://")])
		if _, err := s.Write(t.Context(), "", put("/a", version)); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		response, err := direct.Client.Get(t.Context(), key)
		if err != nil || len(response.Kvs) != 1 || string(response.Kvs[0].Value) != test.want || gap.transactions != test.txns {
			t.Errorf("%s: got %v, %v in %d transactions; want %s in %d", test.name, response, err, gap.transactions, test.want, test.txns)
		}
	}
}

// Two batches at once are made one after the other, whichever that is, and not
// a part of each.
func TestWritesAtOnceAreWhole(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	direct := dial(t, members[0].Client)
	if _, err := direct.Write(t.Context(), "", put("/a", "1"), put("/b", "1")); err != nil {
		t.Fatal(err)
	}
	s, gap := dialGap(t, members[0].Client)
	gap.between = func() {
		if _, err := direct.Write(t.Context(), "", put("/a", "other"), put("/b", "other")); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Write(t.Context(), "", put("/a", "1"), slipswitch.Change{Delete: &slipswitch.Key{Path: "/b"}}); err != nil {
		t.Fatal(err)
	}
	g := newGateway(t, direct)
	g.want("/a=1")
}

// A route that is deleted while its activity is written leaves none behind.
func TestTouchDeleted(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	direct := dial(t, members[0].Client)
	if _, err := direct.Write(t.Context(), "", put("/a", "1")); err != nil {
		t.Fatal(err)
	}
	key := slipswitch.Key{Path: "/a"}
	s, gap := dialGap(t, members[0].Client)
	gap.between = func() {
		if _, err := direct.Write(t.Context(), "", slipswitch.Change{Delete: &key}); err != nil {
			t.Error(err)
		}
	}
	if err := s.Touch(t.Context(), store.LastUse{Key: key, At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if keys := keysOf(t, direct); len(keys) > 0 || gap.transactions < 2 {
		t.Errorf("after %d transactions there is %v; want nothing", gap.transactions, keys)
	}
}
