package etcdstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/etcdstore"
	"github.com/slipswitch/slipswitch/store/storetest"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestStore(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	direct := dial(t, members[0].Client).Client
	var subjects atomic.Int32
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		wire := newWire(t, members[0].Client)
		prefix := fmt.Sprintf("/test%d/", subjects.Add(1))
		key := func(owner string, key slipswitch.Key) string { return prefix + "routes/" + owner + "/" + key.String() }
		return storetest.Subject{
			Open: func(t *testing.T) store.Store {
				s := dial(t, wire.url())
				s.Prefix = prefix
				return s
			},
			Plant: func(t *testing.T, owner string, k slipswitch.Key, value string) {
				if _, err := direct.Put(t.Context(), key(owner, k), value); err != nil {
					t.Fatal(err)
				}
			},
			Peek: func(t *testing.T, owner string, k slipswitch.Key) string {
				response, err := direct.Get(t.Context(), key(owner, k))
				if err != nil || len(response.Kvs) != 1 {
					t.Fatalf("got %v, %v", response, err)
				}
				return string(response.Kvs[0].Value)
			},
			Cut: func(*testing.T) func() {
				wire.sever()
				return wire.heal
			},
		}
	})
}

func put(path, upstream string) slipswitch.Change {
	return slipswitch.Change{Put: &slipswitch.Route{Path: path, Upstreams: slipswitch.To("http://" + upstream)}}
}

// puts returns puts of /from … /to-1.
func puts(from, to int, upstream string) (changes []slipswitch.Change) {
	for i := from; i < to; i++ {
		changes = append(changes, put(fmt.Sprintf("/%04d", i), upstream))
	}
	return changes
}

// Keys under the prefix that are no routes hold back only themselves.
func TestStrangeKeys(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	s := dial(t, members[0].Client)
	for _, key := range []string{"routes/", "routes/a", "routes/a%zz/b", "routes//no path", "routes///a/../b", "routes///%61",
		"routes///a later", "routes///b active", "routes.confirmed"} {
		if _, err := s.Client.Put(t.Context(), "/slipswitch/"+key, "strange"); err != nil {
			t.Fatal(err)
		}
	}
	g := newGateway(t, s)
	if _, err := g.Apply(t.Context(), "", put("/good", "up")); err != nil {
		t.Fatal(err)
	}
	g.want("/good=up")
	if got := g.Status().Quarantined; len(got) != 7 || !strings.HasPrefix(got[0].Where, "/slipswitch/routes/") {
		t.Errorf("in quarantine are %d: %+v; want 7, with their keys", len(got), got)
	}
	if _, err := s.Client.Delete(t.Context(), "/slipswitch/routes/", clientv3.WithRange("/slipswitch/routes///b")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Apply(t.Context(), "", put("/good", "better")); err != nil {
		t.Fatal(err)
	}
	if got := g.Status().Quarantined; len(got) != 3 {
		t.Errorf("in quarantine are still %+v; want three", got)
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	s := dial(t, members[0].Client)
	if _, err := s.Write(t.Context(), "", puts(0, 127, "up")...); err != nil {
		t.Errorf("127 routes: %v", err)
	}
	if _, err := s.Write(t.Context(), "", puts(200, 328, "up")...); !errors.Is(err, store.ErrTooLarge) || !strings.Contains(err.Error(), "128") {
		t.Errorf("128 routes: got %v; want ErrTooLarge and the numbers", err)
	}
	// Of many only those count that are not there as they are, and each of the
	// fields that a later version has put is still there.
	for from := 0; from < 1000; from += 100 {
		if _, err := s.Write(t.Context(), "", puts(from, from+100, "up")...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Client.Put(t.Context(), "/slipswitch/routes///0500", `{"path":"/0500","shade":7,"upstreams":["http://up"]}`); err != nil {
		t.Fatal(err)
	}
	before := keysOf(t, s)
	all := puts(0, 1000, "up")
	for i := range 127 {
		all[i*7] = put(all[i*7].Put.Path, "other")
	}
	if _, err := s.Write(t.Context(), "", all...); err != nil {
		t.Errorf("127 changes among 1000 puts: %v", err)
	}
	for key, kv := range keysOf(t, s) {
		changed := kv.ModRevision != before[key].ModRevision
		if want := strings.Contains(string(kv.Value), "http://other"); changed != want {
			t.Errorf("%s: written: %v; want %v", key, changed, want)
		}
	}
	if _, err := s.Write(t.Context(), "", append(puts(0, 1000, "up"), put("/new", "up"))...); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("128 changes among 1001 puts: got %v; want ErrTooLarge", err)
	}
	if again := keysOf(t, s); again["/slipswitch/routes///0000"].Version != before["/slipswitch/routes///0000"].Version+1 {
		t.Error("a refused batch was written")
	}
	s.MaxOps = 1000
	if _, err := s.Write(t.Context(), "", puts(0, 500, "more")...); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("more than the server takes: got %v; want ErrTooLarge", err)
	}
	large := puts(0, 40, "up")
	for i := range large {
		large[i].Put.Labels = map[string]string{"x": strings.Repeat("x", 50_000)}
	}
	if _, err := s.Write(t.Context(), "", large...); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("2 MB: got %v; want ErrTooLarge", err)
	}
}

// More routes than a page, and all at one revision.
func TestPages(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	s := dial(t, members[0].Client)
	for i := range 40 {
		if _, err := s.Write(t.Context(), "", puts(100*i, 100*i+100, "up")...); err != nil {
			t.Fatal(err)
		}
	}
	g := newGateway(t, s)
	g.await(func() bool { return g.Router.Table().Len() == 4000 })
}

// Of several changes to one key in a batch, the last counts.
func TestSameKeyTwice(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	g := newGateway(t, dial(t, members[0].Client))
	del := slipswitch.Change{Delete: &slipswitch.Key{Path: "/%61"}}
	if _, err := g.Apply(t.Context(), "", put("/a", "1"), del, put("/a/", "2"), put("/b", "1"), slipswitch.Change{Delete: &slipswitch.Key{Path: "/b"}}); err != nil {
		t.Fatal(err)
	}
	g.want("/a=2")
}

func TestAllGateways(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	wires := []*wire{newWire(t, members[0].Client), newWire(t, members[0].Client)}
	var gateways []*gateway
	for i, w := range wires {
		gateways = append(gateways, newGateway(t, dial(t, w.url()), fmt.Sprint("gateway", i)))
	}
	client := dial(t, members[0].Client).Client
	joined := func() int64 {
		response, err := client.Get(t.Context(), "/slipswitch/gateways/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		return response.Count
	}
	gateways[0].await(func() bool { return joined() == 2 })
	for i := range 5 {
		revision, err := gateways[i%2].Apply(t.Context(), "", put("/a", fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := contextFor(t, 10*time.Second)
		err = gateways[i%2].WaitAll(ctx, revision)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range gateways {
			g.want(fmt.Sprint("/a=", i))
		}
	}
	// One that is cut off is waited for until its lease is lost.
	wires[1].sever()
	revision, err := gateways[0].Apply(t.Context(), "", put("/a", "last"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextFor(t, time.Second)
	defer cancel()
	if err := gateways[0].WaitAll(ctx, revision); err == nil {
		t.Error("did not wait for the gateway that is cut off")
	}
	ctx, cancel = contextFor(t, 20*time.Second)
	defer cancel()
	if err := gateways[0].WaitAll(ctx, revision); err != nil {
		t.Errorf("still waits for a gateway that is lost: %v", err)
	}
	gateways[1].want("/a=4")
	// And is back in time.
	wires[1].heal()
	if err := gateways[1].Wait(ctx, revision); err != nil {
		t.Fatal(err)
	}
	gateways[1].want("/a=last")
	gateways[0].await(func() bool { return joined() == 2 })
}

// A brake that is confirmed on one gateway is let go on all.
func TestConfirmAll(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	a, b := newGateway(t, dial(t, members[0].Client)), newGateway(t, dial(t, members[0].Client))
	for i := range 2 {
		if _, err := a.Apply(t.Context(), "", puts(100*i, 100*i+100, "up")...); err != nil {
			t.Fatal(err)
		}
	}
	var changes []slipswitch.Change
	for i := range 120 {
		changes = append(changes, slipswitch.Change{Delete: &slipswitch.Key{Path: fmt.Sprintf("/%04d", i)}})
	}
	revision, err := a.Apply(t.Context(), "", changes...)
	if !errors.Is(err, store.ErrHeld) {
		t.Errorf("got %v; want ErrHeld", err)
	}
	if err := b.Wait(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
	// One of another cluster, as a copy of that has it, confirms nothing here.
	copied, err := dial(t, members[0].Client).Client.Put(t.Context(), "/slipswitch/routes.confirmed", "1000000")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []*gateway{a, b} {
		if err := g.Wait(t.Context(), uint64(copied.Header.Revision)); err != nil {
			t.Fatal(err)
		}
		if got := g.Router.Table().Len(); got != 200 {
			t.Errorf("%d routes; want 200", got)
		}
	}
	if err := b.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*gateway{a, b} {
		g.await(func() bool { return g.Router.Table().Len() == 80 && len(g.Status().Braked) == 0 })
	}
}

// In a quiet store the watch is heard all the same, whether nothing happens in
// the whole cluster or only nothing here.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	s := dial(t, members[0].Client)
	g := newGateway(t, s)
	for i := range 8 {
		if i >= 4 {
			if _, err := s.Client.Put(t.Context(), "elsewhere", ""); err != nil {
				t.Fatal(err)
			}
		}
		before := g.Status()
		g.await(func() bool { return g.Status().Contact.After(before.Contact) })
		if after := g.Status(); after.Error != "" || after.Contact.Sub(before.Contact) > store.Heartbeat {
			t.Errorf("status %+v after %+v", after, before)
		}
	}
}

// keysOf returns the routes' keys as etcd has them.
func keysOf(t *testing.T, s *etcdstore.Store) map[string]*mvccpb.KeyValue {
	t.Helper()
	response, err := s.Client.Get(t.Context(), "/slipswitch/routes/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]*mvccpb.KeyValue)
	for _, kv := range response.Kvs {
		all[string(kv.Key)] = kv
	}
	return all
}
