package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode/utf8"

	"github.com/slipswitch/slipswitch"
)

// Stores keep routes as JSON. Gateways of two versions may share a store, so a
// field that this version does not know is neither an error nor lost.

// Encode returns a route as stores keep it. It adds those fields of standing, the
// value at its key, that this version does not know. A standing that is nil or
// unreadable is ignored.
func Encode(route *slipswitch.Route, standing []byte) ([]byte, error) {
	if !utf8.ValidString(route.Path) { // JSON would corrupt it
		key, err := route.Key().Canonical()
		if err != nil {
			return nil, err
		}
		spelt := *route
		spelt.Path, route = key.Path, &spelt
	}
	value, err := route.MarshalJSON() // json.Marshal would read and copy it once more
	if err != nil {
		return nil, fmt.Errorf("store: route %.80q: %w", route.Key(), err)
	}
	if standing == nil {
		return value, nil
	}
	_, unknown, err := slipswitch.DecodeRoute(standing)
	if err != nil || len(unknown) == 0 {
		return value, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(value, &fields); err != nil {
		return nil, err
	}
	maps.Copy(fields, unknown)
	return json.Marshal(fields)
}

// Decode returns the entry for what a store keeps for an owner's canonical
// key: a route, or the error that makes it unreadable.
func Decode(owner string, key slipswitch.Key, value []byte, where string) Entry {
	e := Entry{Owner: owner, Key: key, Where: where}
	route, _, err := slipswitch.DecodeRoute(value)
	if err == nil {
		err = misplaced(&route, key)
	}
	if err != nil {
		e.Err = withoutValues(err)
	} else {
		e.Route = &route
	}
	return e
}

// withoutValues returns an error without the values of the route, which may be
// secret.
func withoutValues(err error) error {
	fields, ok := errors.AsType[slipswitch.FieldErrors](err)
	if !ok {
		return err
	}
	var all []string
	for _, e := range fields {
		all = append(all, e.Field+" "+e.Want)
	}
	return errors.New("store: the route is unreadable: " + strings.Join(all, "; "))
}

// misplaced returns an error if the store has the route under another key than
// its own.
func misplaced(route *slipswitch.Route, key slipswitch.Key) error {
	if route.Key() == key {
		return nil
	}
	own, err := route.Key().Canonical()
	if err == nil && own != key {
		err = fmt.Errorf("store: the route for %.80q is kept as %.80q", own, key)
	}
	return err
}

// Keys returns the canonical keys of changes, or an error if one of those is
// not exactly one put or delete of a valid key.
func Keys(changes []slipswitch.Change) ([]slipswitch.Key, error) {
	keys := make([]slipswitch.Key, len(changes))
	for i, c := range changes {
		var key slipswitch.Key
		switch {
		case c.Put != nil && c.Delete == nil:
			key = c.Put.Key()
		case c.Delete != nil && c.Put == nil:
			key = *c.Delete
		default:
			return nil, fmt.Errorf("store: change %d must have exactly one of put and delete", i)
		}
		var err error
		if keys[i], err = key.Canonical(); err != nil {
			return nil, fmt.Errorf("store: change %d: %w", i, err)
		}
	}
	return keys, nil
}
