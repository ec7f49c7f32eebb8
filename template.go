package slipswitch

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/slipswitch/slipswitch/internal/canon"
)

// An upstream's host may be a template, so that one route can lead to any number of
// upstreams:
//
//	http://{1}.ide.svc.cluster.local.:8080              for the path /service
//	http://{host.1}.ide.svc.cluster.local.:{port:8080,3000-3999}   for the host *.example.com
//	http://{1:web,ide-*}:8080
//
// So a client chooses a part of a name that the gateway resolves. Three rules keep
// it from choosing more: a captured value must be one DNS label; the rest of the
// name must be fixed and absolute, or the values must be listed; and each address
// that the name resolves to is checked before it is dialed (internal/dial).
type hostTemplate struct {
	host  []part
	port  string // empty if ports is set
	ports []portRange
}

// A part of a template's host: fixed text, or a capture.
type part struct {
	text    string
	capture captures // zero means text
	names   []string // values that may be captured, some ending in *; nil means all
}

type portRange struct{ first, last int }

// captures are the parts of a request that a template captures.
type captures uint8

const (
	captureSegment captures = 1 << iota // {1}: the segment after the route's path
	captureLabel                        // {host.1}: the label that the * of the route's host matches
	capturePort                         // {port:…}: the number in that segment or label, as in 3000-ide-7, 3000--ide-7 and ide-7--3000
)

const defaultName = ".ide.svc.cluster.local."

// parseTemplate parses the authority of an upstream's URL. The error completes
// "upstream must …".
func parseTemplate(authority, defaultPort string) (*hostTemplate, captures, error) {
	var t hostTemplate
	used := captures(0)
	host, port := cutPort(authority)
	for rest := host; rest != ""; {
		text, placeholder, found := strings.Cut(rest, "{")
		if text != "" {
			t.host = append(t.host, part{text: text})
		}
		if !found {
			break
		}
		placeholder, rest, found = strings.Cut(placeholder, "}")
		p, err := parsePart(placeholder)
		switch {
		case err != nil:
			return nil, 0, err
		case !found || used&p.capture != 0:
			return nil, 0, errors.New("must close each brace, and use each of {1} and {host.1} once")
		}
		used |= p.capture
		t.host = append(t.host, p)
	}
	if used == 0 {
		return nil, 0, errName
	}
	if err := t.checkHost(); err != nil {
		return nil, 0, err
	}
	switch list, isList := strings.CutPrefix(port, "{port:"); {
	case port == "":
		t.port = defaultPort
	case !isList:
		t.port = port
	default:
		used |= capturePort
		var err error
		if t.ports, err = parsePorts(strings.TrimSuffix(list, "}")); err != nil || !strings.HasSuffix(list, "}") {
			return nil, 0, errPorts
		}
	}
	if t.ports == nil && !isPort(t.port) {
		return nil, 0, errPorts
	}
	return &t, used, nil
}

var (
	errPorts = errors.New("must have a port from 1 to 65535, or list them, as {port:8080,3000-3999} does")
	errName  = errors.New("must use no braces but {1}, {host.1} and, as the port, {port:8080,3000-3999}; " +
		"names may be listed, as {1:web,ide-*} does")
)

// cutPort splits at the last colon outside of braces.
func cutPort(authority string) (host, port string) {
	depth := 0
	for i, c := range authority {
		switch c {
		case '{':
			depth++
		case '}':
			depth--
		case ':':
			if depth == 0 {
				return authority[:i], authority[i+1:]
			}
		}
	}
	return authority, ""
}

func parsePart(placeholder string) (part, error) {
	name, list, listed := strings.Cut(placeholder, ":")
	p := part{}
	switch name {
	case "1":
		p.capture = captureSegment
	case "host.1":
		p.capture = captureLabel
	default:
		return p, errName
	}
	if listed {
		p.names = strings.Split(list, ",")
	}
	for _, name := range p.names {
		if name == "" || checkLabel(strings.TrimSuffix(name, "*")+"x") != nil {
			return p, errName
		}
	}
	return p, nil
}

func parsePorts(list string) (ports []portRange, err error) {
	for element := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(element, "-")
		if !isRange {
			last = first
		}
		if !isPort(first) || !isPort(last) {
			return nil, errPorts
		}
		r := portRange{}
		r.first, _ = strconv.Atoi(first)
		r.last, _ = strconv.Atoi(last)
		if r.last < r.first {
			return nil, errPorts
		}
		ports = append(ports, r)
	}
	return ports, nil
}

// isPort reports whether s is a port number, without leading zeros.
func isPort(s string) bool {
	if s == "" {
		return false // without allocating an error
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0'
}

// checkHost refuses a host of which a client could choose more than one label, or
// the end of the name, unless the values are listed.
func (t *hostTemplate) checkHost() error {
	var name strings.Builder
	listed := true
	for i, p := range t.host {
		if p.capture == 0 {
			name.WriteString(p.text)
			continue
		}
		if i > 0 && t.host[i-1].capture != 0 || i > 1 && !strings.Contains(t.host[i-1].text, ".") {
			return errors.New("must have no two captures in one label: a-b and c would be a and b-c")
		}
		listed = listed && p.names != nil
		name.WriteString("x")
	}
	last := t.host[len(t.host)-1]
	fixed := last.capture == 0 && strings.Count(last.text, ".") >= 2 && strings.HasSuffix(last.text, ".") && !isNumeric(lastLabel(last.text))
	switch _, _, err := canon.ScanHost(name.String()); {
	case err != nil:
		return fmt.Errorf("must have a valid host: it %w", err)
	case strings.ToLower(name.String()) != name.String():
		return errors.New("must have its host in lower case")
	case !fixed && !listed:
		return errors.New("must end in a fixed and absolute name, as {1}" + defaultName + " does (mind the dot), " +
			"or list the names that may be captured, as {1:web,ide-*} does")
	}
	return nil
}

func lastLabel(name string) string {
	name = strings.TrimSuffix(name, ".")
	return name[strings.LastIndexByte(name, '.')+1:]
}

// captured are the values that a template captures of one request.
type captured struct{ segment, label, port string }

// Capture returns the value that the route's templates capture of the request: name
// is "1", "host.1" or "port". It returns "" for a name that they do not have, and
// for the port of a request without one, which gets the first of the list.
func (m Match) Capture(name string) string {
	values, err := m.values()
	if err != nil {
		return ""
	}
	switch name {
	case "1":
		return values.segment
	case "host.1":
		return values.label
	case "port":
		return values.port
	}
	return ""
}

// values returns the captured values. match has stored those of a request.
func (m Match) values() (captured, error) {
	if m.captured != nil {
		return *m.captured, nil
	}
	return m.capture()
}

// capture reads the values from the request's path and host. It fails if one is not
// a DNS label.
func (m Match) capture() (values captured, err error) {
	captures := m.leaf.captures()
	if captures&captureSegment != 0 {
		prefix, _ := canon.CutSegments(m.Path, segments(m.leaf.key))
		if len(prefix) < len(m.Path) {
			values.segment = canon.SegmentAt(m.Path, len(prefix)+1)
		}
	}
	if captures&captureLabel != 0 {
		values.label, _, _ = strings.Cut(strings.ToLower(m.host), ".")
	}
	if captures&capturePort != 0 {
		from := &values.segment
		if captures&captureLabel != 0 {
			from = &values.label
		}
		values.port, *from = cutNumber(*from)
	}
	if captures&captureSegment != 0 {
		err = checkLabel(values.segment)
	}
	if captures&captureLabel != 0 && err == nil {
		err = checkLabel(values.label)
	}
	return values, err
}

// cutNumber cuts the port from a label: 3000-name, 3000--name or name--3000. A
// label such as name-3000 is only a name.
func cutNumber(label string) (port, name string) {
	if port, name, found := strings.Cut(label, "-"); found && isDigits(port) {
		return port, strings.TrimPrefix(name, "-")
	}
	if i := strings.LastIndex(label, "--"); i >= 0 && isDigits(label[i+2:]) {
		return label[i+2:], label[:i]
	}
	return "", label
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// checkLabel refuses a value that is not one DNS label in lower case, that resolvers
// read as an address (0x7f000001, 2130706433), or that they resolve without DNS.
func checkLabel(label string) error {
	switch {
	case label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
		strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("%.70q is not one DNS label in lower case", label)
	case isNumeric(label):
		return fmt.Errorf("%q could be read as an address", label)
	case label == "localhost":
		return errors.New("localhost is no upstream's name")
	}
	return nil
}

func isNumeric(label string) bool {
	return strings.HasPrefix(label, "0x") || strings.Trim(label, "0123456789") == ""
}

// expand returns the target for the captured values.
func (t *target) expand(values captured) (target, error) {
	var host strings.Builder
	for _, p := range t.template.host {
		value := p.text
		switch p.capture {
		case captureSegment:
			value = values.segment
		case captureLabel:
			value = values.label
		}
		if !p.allows(value) {
			return target{}, noUpstream(fmt.Errorf("%q is not among the names of %s", value, t))
		}
		host.WriteString(value)
	}
	name, _, err := canon.ScanHost(host.String())
	if err == nil && isNumeric(lastLabel(name)) {
		err = fmt.Errorf("%q could be read as an address", name)
	}
	if err != nil { // the name is too long
		return target{}, noUpstream(err)
	}
	port, err := t.template.portFor(values.port)
	if err != nil {
		return target{}, noUpstream(err)
	}
	expanded := *t
	expanded.addr = host.String() + ":" + port
	return expanded, nil
}

func (t *hostTemplate) portFor(port string) (string, error) {
	switch {
	case t.ports == nil:
		return t.port, nil
	case port == "":
		return strconv.Itoa(t.ports[0].first), nil
	case isPort(port):
		n, _ := strconv.Atoi(port)
		for _, r := range t.ports {
			if r.first <= n && n <= r.last {
				return port, nil
			}
		}
	}
	return "", fmt.Errorf("port %q is not on the list", port)
}

func coversName(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

// noUpstream returns a 404 that tells the client nothing but that there is no route.
func noUpstream(err error) error {
	return &Error{Status: http.StatusNotFound, Reason: "no route", Err: err}
}

// expandAll returns the targets of a match: those of the route, with the captured
// values filled in.
func (m Match) expandAll() ([]target, error) {
	if m.leaf.captures() == 0 {
		return m.leaf.upstreams.targets, nil
	}
	values, err := m.values()
	if err != nil {
		return nil, noUpstream(err)
	}
	targets := make([]target, len(m.leaf.upstreams.targets))
	for i := range targets {
		if targets[i], err = m.leaf.upstreams.targets[i].expand(values); err != nil {
			return nil, err
		}
	}
	return targets, nil
}

// allows reports whether a part may have a value: all of them, or the listed ones.
func (p *part) allows(value string) bool {
	return p.names == nil || slices.ContainsFunc(p.names, func(name string) bool { return coversName(name, value) })
}
