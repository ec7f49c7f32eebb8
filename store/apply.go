package store

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A plan is what some batches ask of the router, together.
type plan struct {
	full      bool
	entries   []Entry        // in order
	last      map[record]int // the last entry of each record
	activity  []Activity
	confirmed uint64
	position  Position
	now       time.Time
}

// An outcome is what a transaction would make of a plan. It becomes the Sync's
// state if the router takes the transaction.
type outcome struct {
	owners  map[string]*owned
	entries []int          // for each of the transaction's changes the entry, or -1
	held    map[string]int // by owner, deletions that were not held before
}

// absences are, by owner, the routes that are in the table and not in the store
// any more, and since which revision.
type absences map[string]map[slipswitch.Key]uint64

func (a absences) add(id record, revision uint64) {
	if a[id.owner] == nil {
		a[id.owner] = make(map[slipswitch.Key]uint64)
	}
	a[id.owner][id.key] = revision
}

// apply brings the router to what the batches say. Its error means that the
// source has broken its promises; the next watch then starts at the beginning.
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
			n = 1 // by itself, as it is compared with the table
		}
		if err := s.applyPlan(batches[:n]); err != nil {
			return err
		}
		batches = batches[n:]
	}
	if s.disordered {
		return errOrder
	}
	return nil
}

func (s *Sync) applyPlan(batches []Batch) error {
	p, err := s.plan(batches)
	if err != nil {
		s.position = Position{}
		return err
	}
	bad, err := s.change(p)
	if err != nil {
		return err
	}
	s.disordered = !p.full && s.disordered
	s.quarantine(p, bad)
	if s.lost != nil {
		s.log().Info("store: in contact again", "revision", p.position.Revision)
	}
	s.position, s.contact, s.lost, s.synced = p.position, p.now, nil, true
	s.known.note(p.activity, p.now)
	return nil
}

// plan puts batches together.
func (s *Sync) plan(batches []Batch) (plan, error) {
	p := plan{position: s.position, now: time.Now(), last: make(map[record]int)}
	for _, b := range batches {
		switch {
		case b.Full:
			p.full = true
		case b.Identity != p.position.Identity:
			return p, fmt.Errorf("store: the source has gone over from %.40q to %.40q", p.position.Identity, b.Identity)
		case b.Revision < p.position.Revision:
			return p, fmt.Errorf("store: the source has gone back from revision %d to %d", p.position.Revision, b.Revision)
		}
		p.position = b.Position
		p.confirmed = max(p.confirmed, b.Confirmed)
		if len(batches) == 1 {
			p.entries, p.activity = b.Entries, b.Activity
		} else {
			p.entries, p.activity = append(p.entries, b.Entries...), append(p.activity, b.Activity...)
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

// change changes the router, and returns the errors of those entries that could
// not be put, by their index.
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
			for owner, n := range o.held {
				s.log().Warn("store: deletions held back until they are confirmed",
					"owner", owner, "routes", n, "revision", p.position.Revision, "for", s.brakeTime().String())
			}
			return bad, nil
		case !ok:
			return nil, err
		}
		for _, wrong := range invalid.Routes {
			i := o.entries[wrong.Index]
			if i < 0 {
				return nil, err
			}
			bad[i] = errors.Join(bad[i], fmt.Errorf("%s %s", wrong.Field, wrong.Want)) // values may be secret
		}
	}
}

// fill makes a plan's changes in a transaction.
func (s *Sync) fill(tx *slipswitch.Txn, p plan, bad map[int]error) outcome {
	o := outcome{owners: make(map[string]*owned, len(s.owners)), held: make(map[string]int)}
	for name, owner := range s.owners {
		o.owners[name] = owner.clone()
	}
	remove := func(owner *owned, key slipswitch.Key, entry int) {
		o.entries = append(o.entries, entry)
		if tx.As(owner.owner).DeleteKey(key) {
			owner.count--
		}
	}
	put := func(owner *owned, route slipswitch.Route, key slipswitch.Key, entry int) {
		if !tx.As(owner.owner).Has(key) {
			owner.count++
		}
		o.entries = append(o.entries, entry)
		tx.As(owner.owner).Put(route)
	}
	var disordered map[slipswitch.Key]bool
	gone := make(absences)
	if p.full {
		disordered = s.compare(p, o.owners, gone)
	} else {
		for id, i := range p.last {
			e := &p.entries[i]
			if e.Route == nil && e.Err == nil && tx.As(o.owners[id.owner].owner).Has(id.key) {
				gone.add(id, cmp.Or(e.Revision, p.position.Revision))
			}
		}
	}
	for name, owner := range o.owners {
		held := len(owner.held)
		for _, key := range owner.brake(gone[name], p, s.brakeTime()) {
			remove(owner, key, -1)
		}
		if n := len(owner.held) - held; n > 0 {
			o.held[name] = n
		}
	}
	before := s.Router.Table()
	anew := make(map[slipswitch.Key]bool) // of the disordered ones, those taken away
	for i, e := range p.entries {
		owner := o.owners[e.Owner]
		_, held := owner.held[e.Key]
		if disordered[e.Key] && !anew[e.Key] {
			anew[e.Key] = true
			for name, owner := range o.owners {
				if _, there := p.last[record{name, e.Key}]; there {
					remove(owner, e.Key, -1)
				}
			}
		}
		switch {
		case held && p.last[record{e.Owner, e.Key}] != i:
			continue // only how it ends decides whether it is still held
		case e.Key.Path == "":
			continue // something unreadable, or that it is gone
		case bad[i] != nil: // the last good one stays, also if it was to go
			delete(owner.held, e.Key)
			if last, ok := before.Of(owner.owner.Name, e.Key); ok && anew[e.Key] {
				put(owner, *last.Route, e.Key, -1)
			}
			continue
		case e.Route == nil:
			if !held {
				remove(owner, e.Key, i)
			}
			continue
		case held: // deleted and put again, behind what other owners have there
			delete(owner.held, e.Key)
			remove(owner, e.Key, i)
		}
		route := e.Route
		if s.Route != nil {
			route = new(*e.Route)
			s.Route(route)
		}
		put(owner, *route, e.Key, i)
	}
	for _, a := range p.activity {
		tx.Active(a.Key, a.At)
	}
	return o
}

// compare compares a full plan with the table: it counts what each owner has,
// collects what is gone, and returns the keys for which several owners have
// routes that would not come to stand in the store's order.
func (s *Sync) compare(p plan, owners map[string]*owned, gone absences) map[slipswitch.Key]bool {
	names := make(map[string]string, len(owners)) // the store's by the router's
	for name, owner := range owners {
		names[owner.owner.Name] = name
		owner.count = 0
	}
	standing := make(map[int]bool)         // entries that are in the table, be they older
	latest := make(map[slipswitch.Key]int) // the last of them by key
	disordered := make(map[slipswitch.Key]bool)
	for entry := range s.Router.Table().All() {
		name, ours := names[entry.Owner]
		if !ours {
			continue
		}
		owners[name].count++
		key, err := entry.Route.Key().Canonical()
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
		for i, e := range p.entries { // what is put now comes behind what stands
			if before, ok := latest[e.Key]; ok && i < before && !standing[i] {
				disordered[e.Key] = true
			}
		}
	}
	return disordered
}

// A badID names what is in quarantine.
type badID struct {
	record
	where string // if the key is unknown
}

// quarantine notes which entries are bad, and that others are not any more.
func (s *Sync) quarantine(p plan, bad map[int]error) {
	if p.full {
		before := s.bad
		s.bad = make(map[badID]Quarantined)
		defer func() {
			for id, q := range s.bad {
				if was, ok := before[id]; ok && was.Error == q.Error {
					q.Since = was.Since
					s.bad[id] = q
				}
			}
		}()
	}
	if len(s.bad) == 0 && len(bad) == 0 {
		return
	}
	s.bad = maps.Clone(s.bad) // Status may have the other
	for i, e := range p.entries {
		id := badID{record: record{e.Owner, e.Key}}
		if e.Key.Path == "" {
			id.where = e.Where
		}
		if bad[i] == nil {
			if _, repaired := s.bad[id]; repaired && !p.full {
				// It may have been in the store before the one that stands, and
				// only a full batch tells.
				entry, there := s.Router.Table().Of(s.owners[e.Owner].owner.Name, e.Key)
				s.disordered = s.disordered || there && entry.Held
			}
			delete(s.bad, id)
			continue
		}
		q := Quarantined{Owner: e.Owner, Key: e.Key, Where: e.Where, Error: bad[i].Error(), Since: p.now}
		if s.bad[id].Error != q.Error {
			s.log().Warn("store: route in quarantine", "owner", q.Owner, "route", q.Key.String(), "where", q.Where, "error", q.Error)
		}
		s.bad[id] = q
	}
}
