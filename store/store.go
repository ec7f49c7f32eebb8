// Package store keeps routes outside of the process: where they survive a
// crash, and where many gateways share them.
//
// A [Source] yields routes. A [Store] can be written to, too. A [Sync] keeps a
// router equal to a source:
//
//	routes, err := boltstore.Open("routes.db")
//	…
//	sync := &store.Sync{Source: routes, Router: &router}
//	go sync.Run(ctx)
//	err = sync.Wait(ctx, 0)                  // all routes are there
//	…
//	_, err = sync.Apply(ctx, "", changes...) // kept, and routed
//
// A source that is down changes nothing, and one that looks wrong is not believed
// at once: see Sync.
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

// A Source yields routes. Its methods may be called concurrently.
type Source interface {
	// Watch yields all routes in a full batch, then the changes. A source that can
	// continue from a position without a gap may leave the full batch out.
	//
	// The first batch comes at once, and each next one within [Heartbeat]. If nothing
	// has changed it is empty, which says that the source is in contact and has no
	// news. A batch has one or more whole writes, never a part of one. Revisions
	// decrease only in a full batch. Batches must not be modified.
	//
	// The sequence ends when the context ends, or with an error when the source
	// loses contact to its server or files.
	Watch(ctx context.Context, from Position) iter.Seq2[Batch, error]
}

// A Store is a source that can be written to.
type Store interface {
	Source

	// Write makes the changes of an owner, all or none. When they are safe it
	// returns the revision that has them. A watch yields that revision, too, also if
	// they changed nothing. A put keeps fields of the stored route that this version
	// does not know: see [Encode].
	//
	// Keys must be valid; a store does not check the rest of a route. Errors are
	// [ErrUnavailable], [ErrTooLarge] and [ErrReadOnly], with the reason. After
	// ErrUnavailable the changes may have been made or not.
	Write(ctx context.Context, owner string, changes ...slipswitch.Change) (revision uint64, err error)
}

// An ActivityStore also keeps when routes were last used.
type ActivityStore interface {
	Store

	// Touch keeps the times of uses. For each route it keeps the latest. A use of a
	// route that the store does not have is ignored.
	Touch(ctx context.Context, uses ...LastUse) error
}

// A LeaseStore also keeps routes for a time only.
type LeaseStore interface {
	Store

	// WriteFor is Write of puts alone, whose routes are deleted when ttl has passed,
	// or a little later, unless they were written again.
	WriteFor(ctx context.Context, ttl time.Duration, owner string, changes ...slipswitch.Change) (revision uint64, err error)
}

// A SharedStore connects the gateways that share it.
type SharedStore interface {
	Store

	// Join makes a gateway take part in WaitAll, until the context ends or contact
	// is lost, and returns the reason. It receives the revisions that the gateway's
	// router has. The channel is never closed.
	Join(ctx context.Context, gateway string, revisions <-chan uint64) error

	// WaitAll waits until every gateway that has joined has the revision. A gateway
	// that has been out of contact for long no longer counts.
	WaitAll(ctx context.Context, revision uint64) error

	// Confirm confirms all deletions up to the revision; see Sync.Confirm.
	Confirm(ctx context.Context, revision uint64) error
}

// Errors of stores. They are wrapped by ones that say the reason.
var (
	ErrUnavailable = errors.New("store: unavailable")         // try again later
	ErrTooLarge    = errors.New("store: batch too large")     // divide the batch
	ErrReadOnly    = errors.New("store: not to be written")   // the store, or a route in it
	ErrNoLeases    = errors.New("store: no leases")           // the store is no LeaseStore
	ErrHeld        = errors.New("store: deletions held back") // written, but held by the brake
)

// A Position is how far a watch has come.
type Position struct {
	// Identity tells stores apart: another cluster, or another file under the same
	// name, has another one.
	Identity string `json:"identity"`

	// Revision counts the store's changes.
	Revision uint64 `json:"revision"`
}

// A Batch is a part of a watch: all routes, or changes.
type Batch struct {
	Position // after this batch

	// Full means that Entries are all routes: any other has been deleted. The
	// entries of a full batch are in the order in which they were first put.
	Full    bool
	Entries []Entry

	LastUses  []LastUse // in no order
	Confirmed uint64    // deletions up to this revision are confirmed: see Sync.Confirm
}

// An Entry is one route of a store, or its deletion.
type Entry struct {
	Owner string
	Key   slipswitch.Key // canonical; the zero Key if the entry is unreadable and has none

	// Route is the route at the key now. Nil means that it was deleted or, with Err,
	// that it is unreadable.
	Route *slipswitch.Route

	// Revision is the revision of the write. Sources whose batches have Confirmed
	// must set it. Zero means that of the batch.
	Revision uint64

	Err   error  // why the entry is unreadable
	Where string // for people: a file's name and line, or a key of the store
}

// A LastUse says when a route was last used.
type LastUse struct {
	Owner string
	Key   slipswitch.Key // canonical
	At    time.Time
}
