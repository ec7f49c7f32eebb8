package admin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
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
		Version uint64 `json:"version"`
	}{version})
	return nil
}

// decodeBatch reads a batch. A change that is malformed is returned as one that
// is neither put nor delete, which the transaction refuses: so the batch fails,
// but only after all the others have been checked, too.
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

// merge puts what decoding and what the router found wrong in order. Of a
// malformed change the router knows only that it is none.
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
		invalid = []*slipswitch.RouteError{{Owner: owner, Field: "change", Value: excerpt(data), Want: "must have exactly one of put and delete"}}
	case puts:
		change.Put, invalid = decodeRoute(put, owner)
	case deletes:
		change.Delete, invalid = decodeFields(del, "delete", owner, func(k *slipswitch.Key) slipswitch.Key { return *k })
	}
	return change, invalid
}

// decodeRoute reads a route, and tells all fields that cannot be read. The
// index of the errors is 0.
func decodeRoute(data []byte, owner string) (*slipswitch.Route, []*slipswitch.RouteError) {
	return decodeFields(data, "route", owner, (*slipswitch.Route).Key)
}

func decodeFields[V any](data []byte, what, owner string, keyOf func(*V) slipswitch.Key) (value *V, invalid []*slipswitch.RouteError) {
	value = new(V)
	if isObject(data) && decodeStrict(data, value) == nil {
		return value, nil
	}
	fields, ok := object(data)
	if !ok {
		return value, []*slipswitch.RouteError{{Owner: owner, Field: what, Value: excerpt(data), Want: "must be an object"}}
	}
	var key slipswitch.Key // of the fields that can be read
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		var one V
		alone, _ := json.Marshal(map[string]json.RawMessage{name: fields[name]})
		if err := decodeStrict(alone, &one); err != nil {
			invalid = append(invalid, &slipswitch.RouteError{Owner: owner, Field: name, Value: excerpt(fields[name]), Want: wanted(name, what, err)})
			continue
		}
		k := keyOf(&one)
		key.Host, key.Path, key.Exact = key.Host+k.Host, key.Path+k.Path, key.Exact || k.Exact
	}
	if invalid == nil {
		invalid = []*slipswitch.RouteError{{Owner: owner, Field: what, Value: excerpt(data), Want: "must be another object"}}
	}
	for _, e := range invalid {
		e.Key = key
	}
	return value, invalid
}

// decodeStrict reads an object that has no unknown fields.
func decodeStrict(data []byte, into any) error {
	if route, ok := into.(*slipswitch.Route); ok {
		return route.UnmarshalJSON(data) // strict itself
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// wanted says what the value of a field of a put or delete must be.
func wanted(field, what string, err error) string {
	switch {
	case strings.Contains(err.Error(), "unknown field") && what == "delete":
		return "must not be there: delete has host, path and exact"
	case strings.Contains(err.Error(), "unknown field"):
		return "must not be there: a route has no such field"
	case strings.HasSuffix(field, "Timeout"):
		return `must be a duration such as "120s" or "1h30m"`
	}
	switch field {
	case "host", "path", "upstreamHost", "tlsProfile", "opaqueQuery":
		return "must be a text"
	case "exact", "stripPath":
		return "must be true or false"
	case "upstreams":
		return `must be an array of URLs such as "http://10.0.0.7:8080"`
	case "protocols":
		return "must be an array of texts"
	case "maxBody":
		return "must be a whole number of bytes"
	case "labels":
		return "must be an object of texts"
	}
	return "must be of another type: " + err.Error()
}

// differences says where a route's key is not the one it is put at.
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
			invalid = append(invalid, &slipswitch.RouteError{Owner: owner, Key: got, Field: d.field,
				Value: fmt.Sprint(d.got), Want: fmt.Sprintf("must be as in the address: %v", d.want)})
		}
	}
	return invalid
}

// excerpt returns the beginning of what was given, to be shown.
func excerpt(data []byte) string {
	data = bytes.TrimSpace(data)
	if len(data) <= 64 {
		return string(data)
	}
	return strings.ToValidUTF8(string(data[:61]), "") + "…"
}
