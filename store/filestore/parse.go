package filestore

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

// parse reads a file of routes: a list of them, or an object with the list as
// "routes" and, optionally, their "owner". Each route may have its own "owner".
func parse(name string, data []byte) (entries []store.Entry, err error) {
	var v value
	if path.Ext(name) == ".json" {
		v, err = parseJSON(data)
	} else {
		v, err = parseYAML(data)
	}
	if err == nil {
		entries, err = routes(name, v)
	}
	if f, ok := err.(*fault); ok {
		return nil, fmt.Errorf("filestore: %s: %w", where(name, f.line), f)
	}
	return entries, err
}

func where(name string, line int) string {
	if line == 0 {
		return name
	}
	return fmt.Sprintf("%s:%d", name, line)
}

func routes(name string, v value) ([]store.Entry, error) {
	owner := ""
	if v.kind == object {
		line := v.line
		members := v.members
		v = value{line: line}
		for _, m := range members {
			switch m.name {
			case "owner":
				var err error
				if owner, err = text(m); err != nil {
					return nil, err
				}
			case "routes":
				v = m.value
			default:
				return nil, faultAt(m.line, m.name, `must not stand here: the file must be a list of routes, or have "owner" and "routes"`)
			}
		}
	}
	if v.kind != list {
		return nil, faultAt(v.line, "", `must be a list of routes, or have one as "routes"`)
	}
	entries := make([]store.Entry, len(v.items))
	for i, item := range v.items {
		e, err := route(owner, item)
		if err != nil {
			return nil, err
		}
		e.Where = where(name, item.line)
		entries[i] = e
	}
	return entries, nil
}

// route reads one route. The router checks whether it is valid.
func route(owner string, v value) (e store.Entry, err error) {
	if v.kind != object {
		return e, faultAt(v.line, "", "must be a route here")
	}
	e.Owner, e.Route = owner, new(slipswitch.Route)
	plain := value{kind: object}
	for _, m := range v.members {
		if m.name == "owner" {
			if e.Owner, err = text(m); err != nil {
				return e, err
			}
			continue
		}
		alone := value{kind: object, members: []member{m}}
		if err := new(slipswitch.Route).UnmarshalJSON(alone.appendJSON(nil)); err != nil {
			return e, fieldFault(m.value.line, err)
		}
		plain.members = append(plain.members, m)
	}
	if err := e.Route.UnmarshalJSON(plain.appendJSON(nil)); err != nil {
		return e, fieldFault(v.line, err)
	}
	if e.Key, err = e.Route.Key().Canonical(); err != nil {
		return e, fieldFault(v.line, err)
	}
	return e, nil
}

func text(m member) (s string, err error) {
	if m.value.kind != scalar || json.Unmarshal(m.value.scalar, &s) != nil {
		return "", faultAt(m.line, m.name, "must be a text")
	}
	return s, nil
}

// fieldFault says what is wrong with a field, without its value.
func fieldFault(line int, err error) error {
	wrong, ok := errors.AsType[*slipswitch.FieldError](err)
	if !ok {
		return faultAt(line, "", "must be a route")
	}
	return faultAt(line, wrong.Field, "%s", wrong.Want)
}
