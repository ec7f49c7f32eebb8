package filestore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A value is a piece of a JSON or YAML file that knows its line.
type value struct {
	line    int
	scalar  json.RawMessage // of all but objects and lists
	members []member        // of an object
	items   []value         // of a list
	kind    kind
	names   map[string]bool // of the members, while they are added
}

// maxDepth is how deep values may be nested.
const maxDepth = 100

type kind int

const (
	scalar kind = iota
	object
	list
)

type member struct {
	name  string
	line  int
	value value
}

// A fault is an error in a file. It never quotes the file: a file that was never
// meant to be read here must not get into a log.
type fault struct {
	line  int    // 0: unknown
	field string // "": none
	what  string
}

func (f *fault) Error() string {
	if f.field != "" {
		return f.field + " " + f.what
	}
	return f.what
}

func faultAt(line int, field, format string, args ...any) error {
	return &fault{line, field, fmt.Sprintf(format, args...)}
}

// appendJSON appends the value as JSON.
func (v value) appendJSON(b []byte) []byte {
	switch v.kind {
	case object:
		b = append(b, '{')
		for i, m := range v.members {
			if i > 0 {
				b = append(b, ',')
			}
			name, _ := json.Marshal(m.name)
			b = append(append(b, name...), ':')
			b = m.value.appendJSON(b)
		}
		return append(b, '}')
	case list:
		b = append(b, '[')
		for i, item := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	}
	return append(b, v.scalar...)
}

// add adds a member. A duplicate is an error.
func (v *value) add(m member) error {
	if v.names[m.name] {
		return faultAt(m.line, m.name, "is there twice")
	}
	if v.names == nil {
		v.names = make(map[string]bool)
	}
	v.names[m.name] = true
	v.members = append(v.members, m)
	return nil
}

// parseJSON reads a JSON file.
func parseJSON(data []byte) (value, error) {
	p := jsonParser{decoder: json.NewDecoder(bytes.NewReader(data)), data: data}
	p.decoder.UseNumber()
	for i, c := range data {
		if c == '\n' {
			p.newlines = append(p.newlines, i)
		}
	}
	v, err := p.value(0)
	if err == nil {
		if _, more := p.decoder.Token(); more != io.EOF {
			err = faultAt(p.line(), "", "must end after one JSON value")
		}
	}
	return v, err
}

type jsonParser struct {
	decoder  *json.Decoder
	data     []byte
	newlines []int
}

// line returns the line of the token that was read last.
func (p *jsonParser) line() int {
	at := min(int(p.decoder.InputOffset()), len(p.data))
	return 1 + sort.SearchInts(p.newlines, at)
}

func (p *jsonParser) token() (json.Token, error) {
	token, err := p.decoder.Token()
	if err == nil {
		return token, nil
	}
	line := p.line()
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line = 1 + sort.SearchInts(p.newlines, int(syntax.Offset)-1)
	}
	return nil, faultAt(line, "", "must be JSON")
}

func (p *jsonParser) value(depth int) (value, error) {
	token, err := p.token()
	if err != nil {
		return value{}, err
	}
	v := value{line: p.line()}
	if depth > maxDepth {
		return v, errDeep(v.line)
	}
	delim, ok := token.(json.Delim)
	if !ok {
		v.scalar, err = json.Marshal(token)
		return v, err
	}
	v.kind = list
	if delim == '{' {
		v.kind = object
	}
	for p.decoder.More() {
		var m member
		if v.kind == object {
			name, err := p.token()
			if err != nil {
				return v, err
			}
			m.name, _ = name.(string)
			m.line = p.line()
		}
		if m.value, err = p.value(depth + 1); err != nil {
			return v, err
		}
		if v.kind == list {
			v.items = append(v.items, m.value)
		} else if err := v.add(m); err != nil {
			return v, err
		}
	}
	_, err = p.token()
	return v, err
}

// parseYAML reads a YAML file. It refuses tags, and aliases, which can expand a
// small file into a huge one.
func parseYAML(data []byte) (value, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if err == io.EOF {
			return value{}, faultAt(1, "", "must not be empty (write [] for no routes)")
		}
		line, reason := yamlReason(err)
		return value{}, faultAt(line, "", "%s", "must be YAML"+reason)
	}
	if err := decoder.Decode(&second); err != io.EOF {
		return value{}, faultAt(second.Line, "", "must hold one YAML document")
	}
	return yamlValue(document.Content[0], 0)
}

func errDeep(line int) error { return faultAt(line, "", "must not be nested deeper than %d", maxDepth) }

func yamlValue(n *yaml.Node, depth int) (v value, err error) {
	v.line = n.Line
	if depth > maxDepth {
		return v, errDeep(n.Line)
	}
	switch n.Kind {
	case yaml.SequenceNode:
		v.kind = list
		for _, item := range n.Content {
			parsed, err := yamlValue(item, depth+1)
			if err != nil {
				return v, err
			}
			v.items = append(v.items, parsed)
		}
		return v, nil
	case yaml.MappingNode:
		v.kind = object
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i]
			if name.Kind != yaml.ScalarNode {
				return v, faultAt(name.Line, "", "must have plain texts as names")
			}
			m := member{name: name.Value, line: name.Line}
			if m.value, err = yamlValue(n.Content[i+1], depth+1); err != nil {
				return v, err
			}
			if err := v.add(m); err != nil {
				return v, err
			}
		}
		return v, nil
	case yaml.ScalarNode:
		v.scalar, err = yamlScalar(n)
		return v, err
	}
	return v, faultAt(n.Line, "", "must not have aliases: write the value out")
}

func yamlScalar(n *yaml.Node) (json.RawMessage, error) {
	var decoded any
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		decoded = n.Value
	case "!!null", "!!bool", "!!int", "!!float":
		if err := n.Decode(&decoded); err != nil {
			return nil, faultAt(n.Line, "", "must have valid YAML scalars")
		}
	default:
		return nil, faultAt(n.Line, "", "must not have tags")
	}
	encoded, err := json.Marshal(decoded)
	if err != nil { // .nan and .inf
		return nil, faultAt(n.Line, "", "must have finite numbers")
	}
	return encoded, nil
}

// yamlReason extracts the reason from an error of the YAML package, which always
// has the form "yaml: line 3: reason". A reason that quotes the file is left out.
func yamlReason(err error) (line int, reason string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if place, rest, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(place, "line ") {
		line, _ = strconv.Atoi(strings.TrimPrefix(place, "line "))
		text = rest
	}
	for i, part := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("'\"`", r) }) {
		if i%2 == 1 && len(part) > 1 { // more than a ':' or the like
			return line, ""
		}
	}
	return line, ": " + text
}
