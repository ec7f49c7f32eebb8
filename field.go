package slipswitch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
)

// UnmarshalJSON, Key.Canonical and Txn.Put all report an invalid field by one type.
// encoding/json reports only the first one, in terms of Go. So if it refuses JSON,
// an explainer goes through the JSON once more, along the types of the fields, and
// reports each field that does not fit.

// A FieldError says what is wrong with one field of a route or key.
type FieldError struct {
	Field string `json:"field"` // the path of its JSON names: "upstreams[0].weight"
	Value string `json:"value"` // its beginning, as JSON or as text; may be secret
	Want  string `json:"want"`  // "must …"
}

func (e *FieldError) Error() string { return fmt.Sprintf("%s %.64q %s", e.Field, e.Value, e.Want) }

// FieldErrors are the errors in the JSON of a route or key, at most the first 16, in
// the order of the fields' names.
type FieldErrors []*FieldError

func (e FieldErrors) Error() string { return "slipswitch: " + joinErrors(e.Unwrap()) }

// Unwrap returns the field errors.
func (e FieldErrors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

func joinErrors(errs []error) string {
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

const maxFieldErrors = 16

// unmarshalStrict reads JSON into a view. Errors of no field name what as the field.
// The error is FieldErrors.
func unmarshalStrict(data []byte, view any, what string) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(view)
	if err == nil && len(bytes.TrimSpace(data[decoder.InputOffset():])) > 0 {
		err = errors.New("something follows its end")
	}
	if err == nil {
		return nil
	}
	var x explainer
	if json.Valid(data) {
		x.value("", data, reflect.TypeOf(view))
	} else {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = errors.New("it ends too early")
		}
		x.wrong("", data, "must be JSON: "+err.Error())
	}
	if x.errs == nil { // what else could encoding/json refuse
		x.wrong("", data, "must be read: "+err.Error())
	}
	for _, e := range x.errs {
		if e.Field == "" {
			e.Field = what
		}
	}
	return x.errs
}

// An explainer goes through valid JSON and collects the values that do not fit.
type explainer struct{ errs FieldErrors }

func (x *explainer) wrong(path string, data []byte, want string) {
	if len(x.errs) < maxFieldErrors {
		x.errs = append(x.errs, &FieldError{path, excerpt(data), want})
	}
}

// excerpt returns the beginning of JSON, for an error.
func excerpt(data []byte) string {
	data = bytes.TrimSpace(data)
	if len(data) <= 64 {
		return string(data)
	}
	return strings.ToValidUTF8(string(data[:61]), "") + "…"
}

// views maps types to the types by which they read their JSON.
var views = map[reflect.Type]reflect.Type{
	reflect.TypeFor[Route]():       reflect.TypeFor[routeJSON](),
	reflect.TypeFor[Check]():       reflect.TypeFor[checkJSON](),
	reflect.TypeFor[ClosePolicy](): reflect.TypeFor[closePolicyJSON](),
}

// value checks a value for a type. Null fits every type: the field stays as it is.
func (x *explainer) value(path string, data []byte, t reflect.Type) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if view := views[t]; view != nil {
		t = view
	}
	data = bytes.TrimSpace(data)
	switch {
	case string(data) == "null" || t == reflect.TypeFor[json.RawMessage]():
	case t == reflect.TypeFor[Upstream]() || t == reflect.TypeFor[plainUpstream]():
		switch data[0] {
		case '"':
		case '{':
			x.object(path, data, reflect.TypeFor[plainUpstream]())
		default:
			x.wrong(path, data, `must be a URL such as "http://10.0.0.7:8080", or an object with url and weight`)
		}
	case t.Kind() == reflect.Struct:
		x.object(path, data, t)
	case t.Kind() == reflect.Slice:
		x.array(path, data, t.Elem())
	case t.Kind() == reflect.Map:
		x.texts(path, data)
	case json.Unmarshal(data, reflect.New(t).Interface()) != nil:
		x.wrong(path, data, wanted(t))
	}
}

func (x *explainer) object(path string, data []byte, t reflect.Type) {
	members, ok := members(data)
	if !ok {
		x.wrong(path, data, "must be an object")
	}
	fields := jsonFields(t)
	for _, m := range members {
		below := join(path, m.name)
		known := slices.IndexFunc(fields, func(f jsonField) bool { return strings.EqualFold(f.name, m.name) })
		switch {
		case known >= 0:
			x.value(below, m.value, fields[known].Type)
		case path == "" && t == reflect.TypeFor[routeJSON]():
			x.wrong(below, m.value, "must not be there: a route has no such field")
		default:
			x.wrong(below, m.value, "must not be there: known are "+strings.Join(namesOf(fields), ", "))
		}
	}
}

type member struct {
	name  string
	value json.RawMessage
}

// members returns those of an object by name, also what is there twice; false
// for any other value.
func members(data []byte) (members []member, ok bool) {
	if data[0] != '{' {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.Token()
	for decoder.More() {
		var m member
		name, _ := decoder.Token()
		m.name, _ = name.(string)
		decoder.Decode(&m.value)
		members = append(members, m)
	}
	slices.SortStableFunc(members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return members, true
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (x *explainer) array(path string, data []byte, element reflect.Type) {
	var elements []json.RawMessage
	if json.Unmarshal(data, &elements) != nil {
		want := "must be an array of texts"
		if element == reflect.TypeFor[Upstream]() {
			want = `must be an array of URLs such as "http://10.0.0.7:8080"`
		}
		x.wrong(path, data, want)
	}
	for i, value := range elements {
		x.value(fmt.Sprintf("%s[%d]", path, i), value, element)
	}
}

func (x *explainer) texts(path string, data []byte) {
	members, ok := members(data)
	if !ok {
		x.wrong(path, data, "must be an object of texts")
	}
	for _, m := range members {
		x.value(join(path, m.name), m.value, reflect.TypeFor[string]())
	}
}

// wanted says what a plain value of a type must be.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[durationText]():
		return wantDuration
	case t.Kind() == reflect.Bool:
		return "must be true or false"
	case t.Kind() == reflect.String:
		return "must be a text"
	case t.Kind() == reflect.Uint16:
		return fmt.Sprintf("must be a whole number from 0 to %d", math.MaxUint16)
	}
	return "must be a whole number"
}

const wantDuration = `must be a duration such as "120s" or "1h30m"`

// A jsonField is a field of a struct, with its name as JSON.
type jsonField struct {
	name string
	reflect.Type
}

// jsonFields returns the fields that a struct has as JSON.
func jsonFields(t reflect.Type) (fields []jsonField) {
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			fields = append(fields, jsonField{name, field.Type})
		}
	}
	return fields
}

func namesOf(fields []jsonField) []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// A durationText is a time.Duration as a JSON text.
type durationText time.Duration

func (d durationText) IsZero() bool { return d == 0 }

func (d durationText) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).String()), nil
}

func (d *durationText) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return errors.New(wantDuration)
	}
	*d = durationText(parsed)
	return nil
}
