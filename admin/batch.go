package admin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/slipswitch/slipswitch"
)

// batch answers POST /v1/batch.
func (h *Handler) batch(w http.ResponseWriter, r *http.Request) *problem {
	query, wrong := parameters(r, "wait")
	if wrong != nil {
		return wrong
	}
	all, wrong := waitsForAll(query)
	if wrong != nil {
		return wrong
	}
	body, wrong := readJSON(w, r, h.maxBatch())
	if wrong != nil {
		return wrong
	}
	changes, replace, malformed, wrong := decodeBatch(body, h.owner())
	if wrong != nil {
		return wrong
	}
	version, err := h.write(r.Context(), change{
		owner: h.Owner, replace: replace, changes: changes, conditional: conditional(r), all: all,
		check: func() *problem { return precondition(r, h.Router.Table().Version(), true) },
	})
	if err != nil {
		wrong := problemOf(err, "the batch")
		wrong.Invalid = merge(wrong.Invalid, malformed)
		return wrong
	}
	w.Header().Set("ETag", etag(version))
	writeJSON(w, http.StatusOK, struct {
		Version  uint64     `json:"version"`
		Shadowed []shadowed `json:"shadowed,omitempty"`
	}{version, h.shadowedOf(changes)})
	return nil
}

// decodeBatch parses a batch. A malformed change becomes one that is neither put
// nor delete, which the transaction refuses. So the batch fails, but only after
// all other changes have been checked, too.
func decodeBatch(body []byte, owner string) (changes []slipswitch.Change, replace bool, malformed []*slipswitch.RouteError, wrong *problem) {
	fields, ok := object(body)
	if !ok {
		return nil, false, nil, badRequest("body", excerpt(body), `must be an object such as {"changes":[{"put":{…}},{"delete":{…}}]}`)
	}
	var raw []json.RawMessage
	for name, value := range fields {
		switch name {
		case "changes":
			if raw, ok = array(value); !ok {
				return nil, false, nil, badRequest(name, excerpt(value), "must be an array of changes")
			}
		case "replace":
			if json.Unmarshal(value, &replace) != nil || excerpt(value) == "null" {
				return nil, false, nil, badRequest(name, excerpt(value), "must be true or false")
			}
		default:
			return nil, false, nil, badRequest("field", name, "must be changes or replace")
		}
	}
	if fields["changes"] == nil {
		return nil, false, nil, badRequest("changes", "", "must be given, [] for none")
	}
	changes = make([]slipswitch.Change, len(raw))
	for i := range raw {
		change, invalid := decodeChange(raw[i], owner)
		for _, e := range invalid {
			e.Index = i
		}
		if invalid == nil {
			changes[i] = change
		}
		malformed = append(malformed, invalid...)
	}
	return changes, replace, malformed, nil
}

// merge combines the errors of decoding and of the router, in order. Of a
// malformed change the router knows only that it is neither put nor delete.
func merge(invalid, malformed []*slipswitch.RouteError) []*slipswitch.RouteError {
	known := make(map[int]bool, len(malformed))
	for _, e := range malformed {
		known[e.Index] = true
	}
	invalid = slices.DeleteFunc(invalid, func(e *slipswitch.RouteError) bool { return known[e.Index] })
	invalid = append(invalid, malformed...)
	slices.SortStableFunc(invalid, func(a, b *slipswitch.RouteError) int { return cmp.Compare(a.Index, b.Index) })
	return invalid
}

func decodeChange(data []byte, owner string) (change slipswitch.Change, invalid []*slipswitch.RouteError) {
	fields, _ := object(data)
	put, puts := fields["put"]
	del, deletes := fields["delete"]
	switch {
	case len(fields) != 1 || puts == deletes:
		invalid = []*slipswitch.RouteError{{Owner: owner, FieldError: slipswitch.FieldError{Field: "change", Value: excerpt(data), Want: "must have exactly one of put and delete"}}}
	case puts:
		change.Put, invalid = decodeRoute(put, owner)
	case deletes:
		change.Delete = new(slipswitch.Key)
		invalid = decode(del, change.Delete, "delete", owner)
	}
	return change, invalid
}

// decodeRoute parses a route, and reports all fields that are malformed. The
// index of the errors is 0.
func decodeRoute(data []byte, owner string) (*slipswitch.Route, []*slipswitch.RouteError) {
	route := new(slipswitch.Route)
	return route, decode(data, route, "route", owner)
}

func decode(data []byte, into json.Unmarshaler, what, owner string) (invalid []*slipswitch.RouteError) {
	wrong := slipswitch.FieldErrors{{Field: what, Value: excerpt(data), Want: "must be an object"}}
	if isObject(data) {
		err := into.UnmarshalJSON(data)
		if err == nil {
			return nil
		}
		wrong, _ = errors.AsType[slipswitch.FieldErrors](err)
	}
	var key struct { // as far as it is readable
		Host, Path string
		Exact      bool
	}
	json.Unmarshal(data, &key)
	for _, e := range wrong {
		invalid = append(invalid, &slipswitch.RouteError{Owner: owner, Key: slipswitch.Key(key), FieldError: *e})
	}
	return invalid
}

// differences reports in which fields the key of a route differs from the key
// that it is put at.
func differences(got, want slipswitch.Key, owner string) (invalid []*slipswitch.RouteError) {
	for _, d := range []struct {
		field     string
		got, want any
	}{
		{"host", got.Host, want.Host},
		{"path", got.Path, want.Path},
		{"exact", got.Exact, want.Exact},
	} {
		if d.got != d.want {
			invalid = append(invalid, &slipswitch.RouteError{Owner: owner, Key: got, FieldError: slipswitch.FieldError{Field: d.field,
				Value: fmt.Sprint(d.got), Want: fmt.Sprintf("must be as in the address: %v", d.want)}})
		}
	}
	return invalid
}

// excerpt returns the start of a value, for an error.
func excerpt(data []byte) string {
	data = bytes.TrimSpace(data)
	if len(data) <= 64 {
		return string(data)
	}
	return strings.ToValidUTF8(string(data[:61]), "") + "…"
}
