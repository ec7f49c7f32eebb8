package slipswitch

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// A Router holds the current [Table]. The zero Router has no routes. Its methods
// may be called concurrently: readers never wait, writers wait for each other.
type Router struct {
	// Validate, if set, is called with each valid route that is put. An error, best
	// a [*FieldError], refuses the route: [Proxy.Validate] refuses routes that a
	// Proxy cannot serve. It must not block, and must not change the route. It may
	// be called concurrently. The field must not be changed after the router was
	// first used.
	Validate func(*Route) error

	current  atomic.Pointer[Table]
	expected atomic.Int32 // how many say that routes are still to come

	mu     sync.Mutex        // serialises writers
	kept   map[string]*place // places without a route that have tunnels open
	recent recent
}

// Table returns the current table.
func (r *Router) Table() *Table {
	if t := r.current.Load(); t != nil {
		return t
	}
	r.current.CompareAndSwap(nil, &Table{tree: iradix.New[*leaf](), replaced: make(chan struct{})})
	return r.current.Load()
}

// Lookup finds a route in the current table. See [Table.Lookup].
func (r *Router) Lookup(host, path string) (Match, error) { return r.Table().Lookup(host, path) }

// Expect says that more routes are expected, until the returned function is
// called. In that time a Proxy answers a request without a route with 503 and
// Retry-After, not with 404. A store.Sync calls Expect, until it has read its
// source.
func (r *Router) Expect() (arrived func()) {
	r.expected.Add(1)
	return sync.OnceFunc(func() { r.expected.Add(-1) })
}

// A Change is one change to a table as plain data, also for stores and the REST
// API. Exactly one of its fields is set.
type Change struct {
	Put    *Route `json:"put,omitempty"`    // adds the route, or replaces the one with its key
	Delete *Key   `json:"delete,omitempty"` // deletes the route with this key, if there is one
}

// Apply makes the changes of an owner in one batch. A nil owner is the one
// without a name. See [Router.Update].
func (r *Router) Apply(owner *Owner, changes ...Change) (version uint64, err error) {
	return r.Update(func(tx *Txn) error {
		tx.As(owner).Apply(changes...)
		return nil
	})
}

// Update calls change with a transaction and, if it returns nil, publishes the
// changes in one swap: every lookup sees all of them or none. It returns the
// version of the table that has them.
//
// If change returns an error, nothing is changed, and Update returns that error.
// If a change is invalid, nothing is changed, and the error is a [*BatchError]
// with all that are. A batch that leaves all routes as they were publishes no
// table.
//
// change must not call Update. The transaction ends when change returns.
func (r *Router) Update(change func(*Txn) error) (version uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	tx := r.begin()
	if err := change(tx); err != nil {
		return tx.base.version, err
	}
	if tx.errs != nil {
		return tx.base.version, &BatchError{tx.errs}
	}
	return r.publish(tx.batch).version, nil
}

// Check returns the error that Apply would return, changes nothing, and does not
// wait.
func (r *Router) Check(owner *Owner, changes ...Change) error {
	tx := r.begin()
	tx.check = true
	tx.As(owner).Apply(changes...)
	if tx.errs != nil {
		return &BatchError{tx.errs}
	}
	return nil
}

// begin returns a transaction on the current table.
func (r *Router) begin() *Txn {
	base := r.Table()
	return &Txn{batch: &batch{router: r, base: base, put: make(map[string]*leaf), now: time.Now()}, owner: &Owner{}}
}

// publish tells the places that change and swaps in the batch's table, if it
// differs. The lock is held.
func (r *Router) publish(b *batch) *Table {
	changes := b.replacements()
	b.use(changes)
	if len(changes) == 0 {
		return b.base
	}
	next := b.base.with(changes)
	change := TableChange{Origin: b.origin, Version: next.version}
	for _, c := range changes {
		if c.is != nil {
			c.is.place.follow(c.is, change)
			delete(r.kept, c.key)
		} else if place := c.was.place; place.follow(nil, change) {
			r.keep(place)
		}
	}
	r.current.Store(next) // after the places know: a leaf that does not stand at its place is always an older one
	close(b.base.replaced)
	return next
}

// keep remembers a place that has tunnels but no route. The lock is held.
func (r *Router) keep(p *place) {
	if r.kept == nil {
		r.kept = make(map[string]*place)
	}
	r.kept[p.key] = p
}

// forget undoes keep, unless the place is in use again.
func (r *Router) forget(p *place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept[p.key] == p && p.openTunnels() == 0 {
		delete(r.kept, p.key)
	}
}

// A Txn collects the changes of one batch. It may be used only by the function
// that Update calls with it, and until that returns.
//
// Invalid changes are collected, too, and make the whole batch fail.
type Txn struct {
	*batch
	owner *Owner
}

// A batch is what the transactions of all owners in one Update share.
type batch struct {
	router *Router
	base   *Table
	put    map[string]*leaf // by tree key, what is to stand there; nil: nothing
	count  int              // of changes so far, the invalid ones too
	errs   []*RouteError
	now    time.Time
	active map[string]time.Time // by tree key, of Use
	check  bool                 // only errs is asked for: nothing is put or deleted
	origin string               // what From was told
}

// find returns the leaf that is to stand at a key, or nil.
func (b *batch) find(key string) *leaf {
	if l, ok := b.put[key]; ok {
		return l
	}
	return b.base.find(key)
}

// replacements returns all that the batch changes, in the order of keys.
func (b *batch) replacements() []replacement {
	var changes []replacement
	for key, is := range b.put {
		if was := b.base.find(key); was != is {
			changes = append(changes, replacement{key, was, is})
		}
	}
	slices.SortFunc(changes, func(a, b replacement) int { return strings.Compare(a.key, b.key) })
	return changes
}

// use notes the activity of Use, and that of routes put now.
func (b *batch) use(changes []replacement) {
	for key, at := range b.active {
		if l := b.find(key); l != nil {
			l.place.use(at)
		}
	}
	for _, c := range changes {
		if c.is != nil && b.active[c.key].IsZero() {
			c.is.place.use(b.now)
		}
	}
}

// As returns a view of the same transaction whose changes are those of another
// owner. A nil owner is the one without a name.
func (tx *Txn) As(owner *Owner) *Txn {
	if owner == nil {
		owner = &Owner{}
	}
	return &Txn{tx.batch, owner}
}

// From sets the origin of the whole batch, which close reports tell if the batch
// ends tunnels: see [TableChange]. The last call counts.
func (tx *Txn) From(origin string) { tx.origin = origin }

// Apply makes the changes in their order.
func (tx *Txn) Apply(changes ...Change) {
	for _, c := range changes {
		switch {
		case c.Put != nil && c.Delete == nil:
			tx.Put(*c.Put)
		case c.Delete != nil && c.Put == nil:
			tx.Delete(*c.Delete)
		default:
			tx.wrong(Key{})("change", "", "must have exactly one of put and delete")
			tx.count++
		}
	}
}

// Put adds a route, or replaces this owner's route with the same key. An equal
// route is no change. Put copies the route.
//
// If another owner has the key, the route is shadowed until that owner's route is
// deleted.
func (tx *Txn) Put(route Route) {
	defer func() { tx.count++ }()
	valid := len(tx.errs)
	wrong := tx.wrong(route.Key())
	key, kept, err := route.Key().canonical()
	if bad, ok := errors.AsType[*FieldError](err); ok {
		wrong(bad.Field, bad.Value, bad.Want)
	}
	targets := parseTargets(&route, wrong)
	route.validate(wrong)
	if err == nil {
		tx.owner.admit(kept, targets, wrong)
	}
	if validate := tx.router.Validate; validate != nil && len(tx.errs) == valid {
		if err := validate(&route); err != nil {
			bad, ok := errors.AsType[*FieldError](err)
			if !ok {
				bad = &FieldError{Field: "route", Want: err.Error()}
			}
			wrong(bad.Field, bad.Value, bad.Want)
		}
	}
	if len(tx.errs) > valid || tx.check {
		return
	}
	put := tx.router.newLeaf(key, kept, &route, tx.owner.Name, targets)
	put.version = tx.base.version + 1
	tx.set(key, tx.find(key).with(put))
}

// Delete deletes this owner's route with the key k, and reports whether there was
// one. [Route.Key] is the key of a route.
func (tx *Txn) Delete(k Key) bool {
	defer func() { tx.count++ }()
	key, _, err := k.canonical()
	if bad, ok := errors.AsType[*FieldError](err); ok {
		tx.wrong(k)(bad.Field, bad.Value, bad.Want)
		return false
	}
	return !tx.check && tx.delete(key)
}

// Has reports whether this owner has a route with the key k, which may be
// shadowed.
func (tx *Txn) Has(k Key) bool {
	key, _, err := k.canonical()
	return err == nil && tx.find(key).of(tx.owner.Name)
}

// Use notes activity at k's host and path at a time that a store has kept. A
// route that the batch puts there is then not taken for used now. Use does
// nothing if no route stands at k after the batch.
func (tx *Txn) Use(k Key, at time.Time) {
	key, _, err := k.canonical()
	if err != nil || at.IsZero() || at.Before(tx.active[key]) {
		return
	}
	if tx.active == nil {
		tx.active = make(map[string]time.Time)
	}
	tx.active[key] = at
}

// Clear deletes all routes of this owner. Clear and then Put replaces them: a
// route that is put as it was is no change.
func (tx *Txn) Clear() {
	keys := slices.Collect(maps.Keys(tx.put))
	for l := range tx.base.from("") {
		keys = append(keys, l.key)
	}
	for _, key := range keys {
		tx.delete(key)
	}
}

func (tx *Txn) delete(key string) bool {
	top := tx.find(key)
	if !top.of(tx.owner.Name) {
		return false
	}
	tx.set(key, top.without(tx.owner.Name))
	return true
}

// set lets l stand at key; nil: nothing. It goes back to the base table's leaf
// where that is the same.
func (tx *Txn) set(key string, l *leaf) {
	was := tx.base.find(key)
	switch {
	case l.same(was):
		l = was
	case l == nil:
	case was != nil:
		l.takePlace(was.place)
	case tx.router.kept[key] != nil:
		l.takePlace(tx.router.kept[key])
	default:
		l.takePlace(&place{key: key})
	}
	tx.put[key] = l
}

// wrong returns a function that adds what is wrong with the current change.
func (tx *Txn) wrong(key Key) func(field, value, want string) {
	return func(field, value, want string) {
		tx.errs = append(tx.errs, &RouteError{tx.count, tx.owner.Name, key, FieldError{field, value, want}})
	}
}
