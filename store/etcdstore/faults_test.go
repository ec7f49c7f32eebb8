package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/etcdstore"
	"github.com/slipswitch/slipswitch/store/storetest"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Two gateways and a cluster, with WebSockets through both. Whatever befalls
// the cluster: the WebSockets see nothing, no table loses a route, and soon
// afterwards both are equal to the store.
type rig struct {
	t        *testing.T
	direct   *etcdstore.Store // past all wires
	sockets  *storetest.Sockets
	gateways []*gateway
	n        int // of writes
}

// newRig connects each gateway to its own endpoints.
func newRig(t *testing.T, direct *etcdstore.Store, stores ...*etcdstore.Store) *rig {
	t.Helper()
	r := &rig{t: t, direct: direct, sockets: storetest.NewSockets(t)}
	route := r.sockets.Route()
	if _, err := direct.Write(t.Context(), "", append(puts(0, 100, "up"), slipswitch.Change{Put: &route})...); err != nil {
		t.Fatal(err)
	}
	for _, s := range stores {
		s.Timeout = 3 * time.Second // quick to give up
		r.add(newGateway(t, s))
	}
	return r
}

// add opens WebSockets through a gateway.
func (r *rig) add(g *gateway) {
	r.t.Helper()
	r.sockets.Open(g.Router, 50)
	r.gateways = append(r.gateways, g)
}

// equal waits until both gateways have what the store has, and fails if that
// takes longer than 5 s from the first moment at which the store can be read.
func (r *rig) equal() {
	r.t.Helper()
	var want []string
	for want == nil {
		ctx, cancel := contextFor(r.t, 30*time.Second)
		for b, err := range r.direct.Watch(ctx, store.Position{}) {
			if err != nil {
				break
			}
			fresh := &gateway{&store.Sync{Source: r.direct, Router: new(slipswitch.Router)}, r.t}
			for _, e := range b.Entries {
				if _, err := fresh.Router.Apply(nil, slipswitch.Change{Put: e.Route}); err != nil {
					r.t.Fatal(err)
				}
			}
			want = fresh.routes()
			break
		}
		if cancel(); ctx.Err() == context.DeadlineExceeded {
			r.t.Fatal("the store cannot be read")
		}
	}
	began := time.Now()
	for i, g := range r.gateways {
		g.await(func() bool { return slices.Equal(g.routes(), want) && g.Status().Error == "" })
		if took := time.Since(began); took > 5*time.Second {
			r.t.Errorf("gateway %d was equal to the store after %v; want 5 s", i, took)
		}
	}
}

// writes writes through a gateway until that works, which must be soon.
func (r *rig) writes(g *gateway) {
	r.t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		r.n++
		ctx, cancel := contextFor(r.t, 5*time.Second)
		_, err = g.Apply(ctx, "", put("/changing", fmt.Sprint(r.n)))
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	r.t.Fatalf("no write succeeds: %v", err)
}

// fails checks that a write says clearly that it cannot be done now.
func (r *rig) fails(g *gateway) {
	r.t.Helper()
	ctx, cancel := contextFor(r.t, time.Second)
	defer cancel()
	if _, err := g.Apply(ctx, "", put("/never", "up")); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "http://127.0.0.1:") {
		r.t.Errorf("a write in an outage: got %v; want ErrUnavailable, and of which cluster", err)
	}
}

// outage waits until a gateway knows that it is out of contact, and checks that
// it has kept its table.
func (r *rig) outage(g *gateway) {
	r.t.Helper()
	table := g.Router.Table()
	g.await(func() bool { return g.Status().Error != "" })
	if g.Router.Table() != table || table.Len() < 101 {
		r.t.Errorf("in an outage the table has %d routes", g.Router.Table().Len())
	}
}

// cluster3 returns a rig on three members.
func cluster3(t *testing.T) (*rig, []*member) {
	members := newCluster(t, 3)
	all := clientURLs(members)
	return newRig(t, dial(t, all...), dial(t, all...), dial(t, all...)), members
}

func TestMemberKilled(t *testing.T) {
	t.Parallel()
	r, members := cluster3(t)
	for _, who := range []string{"a follower", "the leader"} {
		victim := leader(t, r.direct.Client, members)
		if who == "a follower" {
			victim = members[(slices.Index(members, victim)+1)%3]
		}
		victim.kill()
		for _, g := range r.gateways {
			r.writes(g)
		}
		r.equal()
		startAll(victim)
		r.writes(r.gateways[0])
		r.equal()
	}
}

// A member that hangs, with its connections open, holds nobody up for long.
func TestMemberHangs(t *testing.T) {
	t.Parallel()
	r, members := cluster3(t)
	for range 2 {
		victim := leader(t, r.direct.Client, members)
		hang(t, victim)
		for _, g := range r.gateways {
			r.writes(g)
		}
		r.equal()
		goOn(t, victim)
		r.writes(r.gateways[1])
		r.equal()
	}
}

func TestQuorumLost(t *testing.T) {
	t.Parallel()
	outage := 30 * time.Second
	if testing.Short() {
		outage = 5 * time.Second
	}
	r, members := cluster3(t)
	members[0].kill()
	members[1].kill()
	lost := time.Now()
	for _, g := range r.gateways {
		r.outage(g)
	}
	for time.Since(lost) < outage {
		r.fails(r.gateways[0])
	}
	for _, g := range r.gateways {
		r.outage(g)
		if got := g.Stale(); got < outage-10*time.Second {
			t.Errorf("stale for %v; want %v or so", got, outage)
		}
	}
	startAll(members[0])
	r.equal()
	r.writes(r.gateways[1])
	r.equal()
}

// A gateway is cut off: without a reset, and long enough for the cluster to
// have forgotten what it has missed.
func TestNetworkCut(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	direct := dial(t, members[0].Client)
	wire := newWire(t, members[0].Client)
	r := newRig(t, direct, dial(t, members[0].Client), dial(t, wire.url()))
	for _, compact := range []bool{false, true} {
		wire.sever()
		r.outage(r.gateways[1])
		r.fails(r.gateways[1])
		for range 3 {
			r.writes(r.gateways[0])
		}
		revision, err := direct.Write(t.Context(), "", slipswitch.Change{Delete: &slipswitch.Key{Path: "/0099"}})
		if err != nil {
			t.Fatal(err)
		}
		if compact {
			if _, err := direct.Client.Compact(t.Context(), int64(revision), clientv3.WithCompactPhysical()); err != nil {
				t.Fatal(err)
			}
		}
		wire.heal()
		r.equal()
		r.writes(r.gateways[1])
		r.equal()
	}
}

// The cluster is restored from a backup: the same one, at a lower revision.
// Nothing tells the client, and its watch would wait for the future.
func TestRestored(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	direct := dial(t, members[0].Client)
	r := newRig(t, direct, dial(t, members[0].Client), dial(t, members[0].Client))
	joined := newGateway(t, dial(t, members[0].Client), "joined")
	joined.await(func() bool {
		response, err := direct.Client.Get(t.Context(), "/slipswitch/gateways/joined")
		return err == nil && response.Count == 1
	})
	members[0].kill()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(members[0].Dir)); err != nil {
		t.Fatal(err)
	}
	startAll(members[0])
	for range 20 {
		r.writes(r.gateways[0])
	}
	r.equal()
	r.gateways[0].waitAll()
	before := r.gateways[0].Status().Position
	members[0].kill()
	if err := errors.Join(os.RemoveAll(members[0].Dir), os.CopyFS(members[0].Dir, os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
	startAll(members[0])
	for _, g := range r.gateways { // the backup does not have /changing: that may be an accident
		g.await(func() bool { braked := g.Status().Braked; return len(braked) == 1 && braked[0].Held == 1 })
	}
	held := r.gateways[1].Status().Revision // at most: a full batch does not say when it was deleted
	r.gateways[0].await(func() bool { return r.gateways[0].Status().Revision >= held })
	if err := r.gateways[0].Confirm(t.Context()); err != nil {
		t.Error(err)
	}
	r.equal()
	for _, g := range r.gateways {
		after := g.Status().Position
		if after.Identity != before.Identity || after.Revision >= before.Revision {
			t.Errorf("at %v; want a lower revision than %v of the same cluster", after, before)
		}
	}
	r.writes(r.gateways[0])
	r.equal()
	r.gateways[0].waitAll()
}

// Another cluster answers at the same address, and has little: the brake holds
// the routes that it does not have, and takes those that it has.
func TestAnotherCluster(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	direct := dial(t, members[0].Client)
	r := newRig(t, direct, dial(t, members[0].Client), dial(t, members[0].Client))
	members[0].kill()
	other := *members[0]
	other.Dir, other.Token = t.TempDir(), "another"
	startAll(&other)
	before := r.gateways[0].Status().Identity
	for _, g := range r.gateways {
		g.await(func() bool { return g.Status().Synced && g.Status().Error == "" && g.Status().Identity != before })
		if status := g.Status(); g.Router.Table().Len() != 101 || len(status.Braked) != 1 || status.Braked[0].Held != 101 {
			t.Errorf("%d routes, status %+v; want all kept", g.Router.Table().Len(), status)
		}
	}
	r.writes(r.gateways[0])
	for _, g := range r.gateways {
		g.await(func() bool { return g.Router.Table().Len() == 102 })
	}
	r.direct.Write(t.Context(), "", puts(0, 2, "up")...)
	if err := r.gateways[0].Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.equal()
}

func TestPermissionRevoked(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	root := dial(t, members[0].Client).Client
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	must(root.RoleAdd(ctx, "root"))
	must(root.UserAdd(ctx, "root", "secret"))
	must(root.UserGrantRole(ctx, "root", "root"))
	must(root.RoleAdd(ctx, "gateways"))
	must(root.UserAdd(ctx, "gateway", "secret"))
	must(root.UserGrantRole(ctx, "gateway", "gateways"))
	grant := func(c *clientv3.Client) {
		t.Helper()
		must(c.RoleGrantPermission(ctx, "gateways", "/slipswitch/", clientv3.GetPrefixRangeEnd("/slipswitch/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	}
	grant(root)
	must(root.AuthEnable(ctx))
	as := func(user string) *etcdstore.Store {
		return dialAs(t, clientv3.Config{Endpoints: []string{members[0].Client}, Username: user, Password: "secret"})
	}
	direct := as("root")
	r := newRig(t, direct, as("gateway"), as("gateway"))
	must(direct.Client.RoleRevokePermission(ctx, "gateways", "/slipswitch/", clientv3.GetPrefixRangeEnd("/slipswitch/")))
	for _, g := range r.gateways {
		r.outage(g)
		r.fails(g)
	}
	if _, err := direct.Write(ctx, "", put("/meanwhile", "up")); err != nil {
		t.Fatal(err)
	}
	grant(direct.Client)
	r.equal()
	for _, g := range r.gateways {
		r.writes(g)
	}
	r.equal()
}

// Routes that their agents keep alive are lost all at once: the brake holds
// them, others are added meanwhile, and when the agents are back all is well.
func TestLeasesLost(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1)
	direct := dial(t, members[0].Client)
	wire := newWire(t, members[0].Client)
	r := newRig(t, direct, dial(t, members[0].Client), dial(t, members[0].Client))
	agents := dial(t, wire.url())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 4)
	for agent := range cap(done) {
		var routes []slipswitch.Route
		for i := range 30 {
			routes = append(routes, *put(fmt.Sprintf("/agent%d/%d", agent, i), "up").Put)
		}
		go func() { done <- agents.Register(ctx, 2*time.Second, "agents", routes...) }()
	}
	for _, g := range r.gateways {
		g.await(func() bool { return g.Router.Table().Len() == 221 })
	}
	wire.sever()
	for _, g := range r.gateways {
		g.await(func() bool {
			b := g.Status().Braked
			return len(b) == 1 && b[0].Owner == "agents" && b[0].Held >= 60
		})
	}
	r.writes(r.gateways[0]) // a new route
	for _, g := range r.gateways {
		g.await(func() bool { _, ok := g.Router.Table().At(slipswitch.Key{Path: "/changing"}); return ok })
		if n := g.Router.Table().Len(); n < 102+60 { // how many went before the brake held depends
			t.Errorf("%d routes; want those of the agents kept", n)
		}
	}
	wire.heal()
	for _, g := range r.gateways {
		g.await(func() bool { return g.Router.Table().Len() == 222 && len(g.Status().Braked) == 0 })
	}
	// One that ends in order takes its routes along at once.
	cancel()
	for range cap(done) {
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("an agent ended with %v", err)
		}
	}
	response, err := direct.Client.Get(t.Context(), "/slipswitch/routes/agents/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || response.Count != 0 {
		t.Errorf("%d keys are left, %v; want none", response.Count, err)
	}
	if err := agents.Register(t.Context(), time.Second, "", slipswitch.Route{Path: "no slash"}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("an invalid route: got %v", err)
	}
}
