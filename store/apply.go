package store

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A plan is the changes of some batches, together.
type plan struct {
	full      bool
	entries   []Entry        // in order
	last      map[record]int // the last entry of each record
	activity  []LastUse
	confirmed uint64
	position  Position
	now       time.Time
	suspicion string // why routes may be missing from a full plan by accident; empty: they are meant to be
}

// An outcome is the result of a plan. It becomes the state of the Sync if the
// router accepts the transaction.
type outcome struct {
	owners  map[string]*owned
	of      []int          // for each of the transaction's changes the entry, or -1
	held    map[string]int // by owner, deletions that were not held before
	deleted map[string]*deletions
}

// deletions are the deletions of an owner's routes by a plan.
type deletions struct {
	routes int
	first  []slipswitch.Key // at most ten, in order
}

// absences are the routes, by owner, that are in the table and no longer in the
// store, with the revisions since when.
type absences map[string]map[slipswitch.Key]uint64

func (a absences) add(id record, revision uint64) {
	if a[id.owner] == nil {
		a[id.owner] = make(map[slipswitch.Key]uint64)
	}
	a[id.owner][id.key] = revision
}

// apply applies batches to the router. Its error means that the source has broken
// its promises; the next watch then starts with a full batch.
func (s *Sync) apply(batches []Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners == nil {
		s.owners, s.bad = make(map[string]*owned), make(map[badID]Quarantined)
	}
	defer s.tell()
	for len(batches) > 0 {
		n := len(batches)
		if batches[0].Full {
			n = 1 // alone, since it is compared with the table
		}
		if err := s.applyPlan(batches[:n]); err != nil {
			return err
		}
		batches = batches[n:]
	}
	if now := time.Now(); s.disordered && now.Sub(s.reordered) >= orderPause {
		s.reordered = now
		return errOrder
	}
	return nil
}

func (s *Sync) applyPlan(batches []Batch) error {
	p, err := s.plan(batches)
	if err != nil {
		s.again = true
		return err
	}
	bad, err := s.change(p)
	if err != nil {
		return err
	}
	s.disordered, s.again = !p.full && s.disordered, !p.full && s.again
	s.quarantine(p, bad)
	if s.lost != nil {
		s.log().Info("store: in contact again", "revision", p.position.Revision)
	}
	if !s.synced {
		s.log().Info("store: the routes are there", "routes", s.count(), "revision", p.position.Revision)
		s.arrived()
	}
	s.position, s.contact, s.lost, s.synced = p.position, p.now, nil, true
	s.known.note(p.activity, p.now)
	return nil
}

// plan combines batches.
func (s *Sync) plan(batches []Batch) (plan, error) {
	p := plan{position: s.position, now: time.Now(), last: make(map[record]int)}
	for _, b := range batches {
		switch {
		case b.Full:
			p.full, p.suspicion = true, s.suspect(b)
		case b.Identity != p.position.Identity:
			return p, fmt.Errorf("store: the source has gone over from %.40q to %.40q", p.position.Identity, b.Identity)
		case b.Revision < p.position.Revision:
			return p, fmt.Errorf("store: the source has gone back from revision %d to %d", p.position.Revision, b.Revision)
		}
		p.position = b.Position
		p.confirmed = max(p.confirmed, b.Confirmed)
		if len(batches) == 1 {
			p.entries, p.activity = b.Entries, b.LastUses
		} else {
			p.entries, p.activity = append(p.entries, b.Entries...), append(p.activity, b.LastUses...)
		}
	}
	for i, e := range p.entries {
		p.last[record{e.Owner, e.Key}] = i
		if s.owners[e.Owner] == nil {
			s.owners[e.Owner] = &owned{owner: s.owner(e.Owner)}
		}
	}
	return p, nil
}

// change changes the router, and returns the errors of entries that could not be
// put, by their index.
func (s *Sync) change(p plan) (bad map[int]error, err error) {
	bad = make(map[int]error)
	for i, e := range p.entries {
		switch {
		case e.Err != nil:
			bad[i] = e.Err
		case e.Route != nil:
			if err := misplaced(e.Route, e.Key); err != nil {
				bad[i] = err
			}
		}
	}
	for {
		var o outcome
		_, err := s.Router.Update(func(tx *slipswitch.Txn) error {
			o = s.fill(tx, p, bad)
			return nil
		})
		invalid, ok := errors.AsType[*slipswitch.BatchError](err)
		switch {
		case err == nil:
			s.owners = o.owners
			s.logDeletions(p, o)
			return bad, nil
		case !ok:
			return nil, err
		}
		for _, wrong := range invalid.Routes {
			i := o.of[wrong.Index]
			if i < 0 {
				return nil, err
			}
			bad[i] = errors.Join(bad[i], fmt.Errorf("%s %s", wrong.Field, wrong.Want)) // values may be secret
		}
	}
}

// logDeletions logs the deletions that a plan has made, and those that were held
// back.
func (s *Sync) logDeletions(p plan, o outcome) {
	for _, owner := range slices.Sorted(maps.Keys(o.deleted)) {
		d := o.deleted[owner]
		first := make([]string, len(d.first))
		for i, key := range d.first {
			first[i] = key.String()
		}
		s.log().Info("store: routes deleted", "revision", p.position.Revision, "owner", owner,
			"routes", d.routes, "first", strings.Join(first, " "))
	}
	for _, owner := range slices.Sorted(maps.Keys(o.held)) {
		s.log().Warn("store: deletions held back until they are confirmed", "revision", p.position.Revision, "owner", owner,
			"routes", o.held[owner], "for", s.brakeTime().String(), "because", o.owners[owner].because)
	}
}

// A filling makes a plan's changes in a transaction.
type filling struct {
	*plan
	outcome
	sync    *Sync
	tx      *slipswitch.Txn
	bad     map[int]error
	removed map[record]bool
	before  *slipswitch.Table
}

func (s *Sync) fill(tx *slipswitch.Txn, p plan, bad map[int]error) outcome {
	tx.From(fmt.Sprintf("store %s revision %d", s.name(), p.position.Revision))
	f := filling{plan: &p, sync: s, tx: tx, bad: bad, removed: make(map[record]bool), before: s.Router.Table()}
	f.owners, f.held = make(map[string]*owned, len(s.owners)), make(map[string]int)
	for name, owner := range s.owners {
		f.owners[name] = owner.clone()
	}
	disordered := f.absent()
	anew := make(map[slipswitch.Key]bool) // disordered keys whose routes have been deleted
	for i, e := range p.entries {
		if disordered[e.Key] && !anew[e.Key] {
			anew[e.Key] = true
			for name := range f.owners {
				id := record{name, e.Key}
				if _, there := p.last[id]; there {
					f.remove(id, -1)
				}
			}
		}
		f.enter(i, e, anew[e.Key])
	}
	for _, a := range p.activity {
		tx.Use(a.Key, a.At)
	}
	f.countDeletions()
	return f.outcome
}

func (f *filling) remove(id record, entry int) {
	owner := f.owners[id.owner]
	f.of = append(f.of, entry)
	if f.tx.As(owner.owner).Delete(id.key) {
		owner.count--
		f.removed[id] = true
	}
}

func (f *filling) put(id record, route slipswitch.Route, entry int) {
	owner := f.owners[id.owner]
	if !f.tx.As(owner.owner).Has(id.key) {
		owner.count++
	}
	f.of = append(f.of, entry)
	f.tx.As(owner.owner).Put(route)
}

// absent finds the routes that are no longer in the store, and deletes those that
// the brake releases, except routes that a change names. It returns the keys
// whose owners must be put again; see compare.
func (f *filling) absent() (disordered map[slipswitch.Key]bool) {
	gone := make(absences)
	if f.full {
		disordered = f.sync.compare(*f.plan, f.owners, gone)
		if f.suspicion == emptied && f.sync.means(gone) {
			f.suspicion = ""
		}
	} else {
		for id, i := range f.last {
			e := &f.entries[i]
			if e.Route == nil && e.Err == nil && f.tx.As(f.owners[id.owner].owner).Has(id.key) {
				gone.add(id, cmp.Or(e.Revision, f.position.Revision))
			}
		}
	}
	for name, owner := range f.owners {
		held := len(owner.held)
		for _, key := range owner.brake(gone[name], *f.plan, f.sync.brakeTime()) {
			f.remove(record{name, key}, -1)
		}
		if n := len(owner.held) - held; n > 0 {
			f.held[name] = n
		}
	}
	return disordered
}

// enter makes the change of one entry. anew means that all routes of its key have
// been deleted.
func (f *filling) enter(i int, e Entry, anew bool) {
	id, owner := record{e.Owner, e.Key}, f.owners[e.Owner]
	_, held := owner.held[e.Key]
	switch {
	case held && f.last[id] != i:
		return // only its last entry decides whether it is still held
	case e.Key.Path == "":
		return // an unreadable entry without a key, or its deletion
	case f.bad[i] != nil: // the last valid route stays, even if its deletion was held
		delete(owner.held, e.Key)
		if last, ok := f.before.Of(owner.owner.Name, e.Key); ok && anew {
			f.put(id, *last.Route(), -1)
		}
		return
	case e.Route == nil:
		if !held {
			f.remove(id, i)
		}
		return
	case held: // deleted and put again: it comes after the routes of other owners
		delete(owner.held, e.Key)
		f.remove(id, i)
	}
	route := e.Route
	if f.sync.Route != nil {
		route = new(*e.Route)
		f.sync.Route(route)
	}
	f.put(id, *route, i)
}

// countDeletions counts the routes that were deleted and not put again.
func (f *filling) countDeletions() {
	f.deleted = make(map[string]*deletions)
	for id := range f.removed {
		if f.tx.As(f.owners[id.owner].owner).Has(id.key) {
			continue
		}
		d := f.deleted[id.owner]
		if d == nil {
			d = new(deletions)
			f.deleted[id.owner] = d
		}
		d.routes++
		d.first = addFirst(d.first, id.key)
	}
}

// compare compares a full plan with the table. It counts the routes of each
// owner, collects the missing ones, and returns the keys at which several owners
// have routes that would not be in the store's order.
func (s *Sync) compare(p plan, owners map[string]*owned, gone absences) map[slipswitch.Key]bool {
	names := make(map[string]string, len(owners)) // the store's by the router's
	for name, owner := range owners {
		names[owner.owner.Name] = name
		owner.count = 0
	}
	standing := make(map[int]bool)         // entries that are in the table, even in an older version
	latest := make(map[slipswitch.Key]int) // the last of them by key
	disordered := make(map[slipswitch.Key]bool)
	for entry := range s.Router.Table().All() {
		name, ours := names[entry.Owner]
		if !ours {
			continue
		}
		owners[name].count++
		key, err := entry.Key().Canonical()
		if err != nil {
			continue // not in a table
		}
		i, there := p.last[record{name, key}]
		if !there || p.entries[i].Route == nil && p.entries[i].Err == nil {
			gone.add(record{name, key}, p.position.Revision)
			continue
		}
		if len(owners) == 1 {
			continue // there is only one order
		}
		if before, ok := latest[key]; ok && i < before {
			disordered[key] = true
		}
		latest[key], standing[i] = i, true
	}
	if len(owners) > 1 {
		for i, e := range p.entries { // new routes come after those in the table
			if before, ok := latest[e.Key]; ok && i < before && !standing[i] {
				disordered[e.Key] = true
			}
		}
	}
	return disordered
}

// A badID identifies a quarantined entry.
type badID struct {
	record
	where string // if the key is unknown
}

// quarantine notes which entries are bad, and releases those that no longer are.
func (s *Sync) quarantine(p plan, bad map[int]error) {
	if len(s.bad) == 0 && len(bad) == 0 {
		return
	}
	before := s.bad
	s.bad = make(map[badID]Quarantined) // Status may have the other
	if !p.full {
		maps.Copy(s.bad, before)
	}
	for i, e := range p.entries {
		id := badID{record: record{e.Owner, e.Key}}
		if e.Key.Path == "" {
			id.where = e.Where
		}
		if bad[i] == nil {
			if _, repaired := s.bad[id]; repaired && !p.full {
				// Its entry may have been in the store before the one that stands,
				// and only a full batch tells.
				entry, there := s.Router.Table().Of(s.owners[e.Owner].owner.Name, e.Key)
				s.disordered = s.disordered || there && entry.Shadowed
			}
			delete(s.bad, id)
			continue
		}
		q := Quarantined{Owner: e.Owner, Key: e.Key, Where: e.Where, Error: bad[i].Error(), Since: p.now}
		if was := before[id]; was.Error == q.Error {
			q.Since = was.Since
		} else {
			s.log().Warn("store: route in quarantine", "owner", q.Owner, "route", q.Key.String(), "where", q.Where, "error", q.Error)
		}
		s.bad[id] = q
	}
	for id, q := range before {
		if _, still := s.bad[id]; !still {
			s.log().Info("store: route out of quarantine", "owner", q.Owner, "route", q.Key.String(), "where", q.Where)
		}
	}
}
