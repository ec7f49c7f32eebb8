package etcdstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A route that is written for a time stays while that is done again and again,
// which writes nothing, and goes when it is not.
func TestWriteFor(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	g := newGateway(t, dial(t, members[0].Client))
	client := dial(t, members[0].Client).Client
	const key = "/slipswitch/routes///a"
	apply := func(ttl time.Duration, upstream string) {
		t.Helper()
		if _, err := g.ApplyFor(t.Context(), ttl, "", put("/a", upstream)); err != nil {
			t.Fatal(err)
		}
		g.want("/a=" + upstream)
	}
	kept := func() (version, lease int64) {
		t.Helper()
		response, err := client.Get(t.Context(), key)
		if err != nil || len(response.Kvs) != 1 {
			t.Fatalf("got %v, %v; want the route", response, err)
		}
		return response.Kvs[0].Version, response.Kvs[0].Lease
	}
	const ttl = 8 * time.Second
	apply(ttl, "1")
	tick := time.NewTicker(ttl / 6)
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < ttl*3/2; <-tick.C {
		apply(ttl, "1")
	}
	if version, lease := kept(); version != 1 || lease == 0 {
		t.Errorf("version %d, lease %d; want one write, with a lease", version, lease)
	}
	_, before := kept()
	apply(ttl, "2") // another route is another write
	if version, lease := kept(); version != 2 || lease == before {
		t.Errorf("version %d, lease %d after %d; want another of both", version, lease, before)
	}
	apply(time.Minute, "2") // and so is another time
	if version, _ := kept(); version != 3 {
		t.Errorf("version %d; want another", version)
	}
	apply(ttl, "2")
	g.await(func() bool { return len(g.routes()) == 0 })

	apply(ttl, "3")
	if _, err := g.Apply(t.Context(), "", put("/a", "3")); err != nil { // it lasts now
		t.Fatal(err)
	}
	if _, lease := kept(); lease != 0 {
		t.Errorf("lease %d; want none", lease)
	}
	if _, err := g.ApplyFor(t.Context(), ttl, "", slipswitch.Change{Delete: &slipswitch.Key{Path: "/a"}}); err == nil {
		t.Error("a deletion for a time: got no error")
	}
	members[0].kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := g.ApplyFor(ctx, ttl, "", put("/a", "4")); err == nil {
		t.Error("without the cluster: got no error")
	}
	g.want("/a=3")
}
