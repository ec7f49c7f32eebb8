// Package store keeps routes outside of the process: where they survive a
// crash, and where many gateways share them.
//
// A [Source] says what routes there are; a [Store] can be written to, too. A
// [Sync] keeps a router equal to a source:
//
//	routes, err := boltstore.Open("routes.db")
//	…
//	sync := &store.Sync{Source: routes, Router: &router}
//	go sync.Run(ctx)
//	err = sync.Wait(ctx, 0)                  // all routes are there
//	…
//	_, err = sync.Apply(ctx, "", changes...) // kept, and routed
//
// A source that is down or wrong never empties the table: see Sync.
package store

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/slipswitch/slipswitch"
)

// Heartbeat is the longest time between two batches of a watch.
const Heartbeat = 10 * time.Second

// A Source is where routes come from. Its methods may be called concurrently.
type Source interface {
	// Watch yields all routes that there are, then whatever changes. If the
	// source can go on from a position without a gap, it may do so and leave
	// out the beginning.
	//
	// The first batch comes at once, and the next within Heartbeat: an empty
	// one if nothing has changed, which says that the source is sure of that.
	// Each holds one or more whole writes, and never a part of one. Revisions do
	// not decrease but in a full batch. What is yielded must not be modified.
	//
	// The sequence ends when the context does; or with an error, once the
	// source has lost contact to what keeps the routes.
	Watch(ctx context.Context, from Position) iter.Seq2[Batch, error]
}

// A Store is a source that can be written to.
type Store interface {
	Source

	// Write makes the changes for an owner, all or none, and returns the
	// revision that has them, once they are safe. A watch says so, too, if
	// they change nothing. A put keeps those fields of the route that stood
	// there which this version does not know; see Encode.
	//
	// Keys must be valid; of the rest of a route stores know nothing. Errors
	// are [ErrUnavailable], [ErrTooLarge] and [ErrReadOnly], with the reason.
	// After ErrUnavailable the changes may have been made or not.
	Write(ctx context.Context, owner string, changes ...slipswitch.Change) (revision uint64, err error)
}

// An ActivityStore also keeps when routes were last used.
type ActivityStore interface {
	Store

	// Touch keeps, for each route that there is, the latest of the time given
	// and the time kept.
	Touch(ctx context.Context, uses ...LastUse) error
}

// A LeaseStore also keeps routes for as long as somebody puts them.
type LeaseStore interface {
	Store

	// WriteFor is Write of puts alone, that last for a time, at least: then the
	// routes are deleted, unless they have been written again.
	WriteFor(ctx context.Context, ttl time.Duration, owner string, changes ...slipswitch.Change) (revision uint64, err error)
}

// A SharedStore is one by which gateways tell each other what concerns all.
type SharedStore interface {
	Store

	// Join lets a gateway take part in WaitAll, until the context ends or the
	// contact is lost, and returns why. It receives the revisions that the
	// gateway's router gets; the channel is never closed.
	Join(ctx context.Context, gateway string, revisions <-chan uint64) error

	// WaitAll waits until every gateway that has joined has the revision. One
	// that is out of contact for long counts no more.
	WaitAll(ctx context.Context, revision uint64) error

	// Confirm confirms all deletions up to the revision; see Sync.Confirm.
	Confirm(ctx context.Context, revision uint64) error
}

// Errors of stores. They are wrapped by ones that say the reason.
var (
	ErrUnavailable = errors.New("store: unavailable")         // try again later
	ErrTooLarge    = errors.New("store: batch too large")     // divide it
	ErrReadOnly    = errors.New("store: not to be written")   // it, or this route in it
	ErrNoLeases    = errors.New("store: no leases")           // it keeps routes for ever
	ErrHeld        = errors.New("store: deletions held back") // written, but the brake holds them
)

// A Position is how far a watch has come.
type Position struct {
	// Identity is that of the store: another cluster, or another file under the
	// same name, has another one.
	Identity string `json:"identity"`

	// Revision counts the store's changes.
	Revision uint64 `json:"revision"`
}

// A Batch is what a source says at once.
type Batch struct {
	Position // with this batch

	// Full says that Entries is all there is: what it does not name has been
	// deleted. The entries of a full batch stand in the order in which they
	// were first put.
	Full    bool
	Entries []Entry

	LastUses  []LastUse // in no order
	Confirmed uint64    // deletions up to this revision are confirmed
}

// An Entry is one route of a store, or that it was deleted.
type Entry struct {
	Owner string
	Key   slipswitch.Key // canonical; of an unreadable entry, it may be unknown

	// Route is what is there now. Nil: nothing, or something unreadable.
	Route *slipswitch.Route

	// Revision is that of the write. Sources whose batches say Confirmed need it;
	// zero: that of the batch.
	Revision uint64

	Err   error  // why it is unreadable
	Where string // for people: a file's name and line, or a key of the store
}

// A LastUse says when a route was last used.
type LastUse struct {
	Owner string
	Key   slipswitch.Key // canonical
	At    time.Time
}
