package slipswitch

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch/internal/canon"
	"github.com/slipswitch/slipswitch/internal/headers"
)

// MaxRoute is the greatest length of a route as JSON, in bytes. Most of it can be
// Meta.
const MaxRoute = 1 << 20

// A Route leads from a host and path to upstreams. It is plain data: it can be
// compared, copied, and sent as JSON, in which durations are texts such as
// "120s". A route taken from a [Table] must not be modified.
//
// Host, Path and Exact are the route's identity: see [Key].
type Route struct {
	Host  string `json:"host,omitempty"`
	Path  string `json:"path"`
	Exact bool   `json:"exact,omitempty"`

	// Upstreams are the servers that requests are forwarded to. Of several, a
	// request goes to the less loaded of two random ones, and to the next if that
	// cannot be reached; the one that failed is then ejected for a while. There
	// must be at least one, unless Resolve is set.
	Upstreams []Upstream `json:"upstreams"`

	// StripPath removes Path from the front of the path that is forwarded. A GET or
	// HEAD of Path itself is then redirected to Path with a slash, so that relative
	// links work.
	StripPath bool `json:"stripPath,omitempty"`

	// RestorePath undoes StripPath in responses: Location and the paths of cookies
	// get Path put before them, if they are for the upstream itself.
	RestorePath bool `json:"restorePath,omitempty"`

	// Tenant keeps an upstream from controlling the host, which it shares with
	// others. Its cookies lose their Domain and get the route's path, the scope of
	// its service workers is cut to that path, and response fields that apply to
	// the whole host are dropped, such as Clear-Site-Data and
	// Strict-Transport-Security. Its scripts can still reach what other paths of
	// the host keep in the browser: only a host for each tenant is a real boundary.
	Tenant bool `json:"tenant,omitempty"`

	// SameOrigin refuses upgrades from pages of other hosts: the Origin must have
	// the host and port that the client asked for. Requests without Origin do not
	// come from pages, and pass.
	SameOrigin bool `json:"sameOrigin,omitempty"`

	// Resolve has Proxy.Resolver find the upstream, for each request.
	Resolve bool `json:"resolve,omitempty"`

	// Sticky keeps each client at the upstream of its first request. Zero means
	// that it may change with each request.
	Sticky Sticky `json:"sticky,omitzero"`

	// Check is the health check of several fixed Upstreams. Zero means none.
	Check Check `json:"check,omitzero"`

	// Headers are rules for header fields. Zero means none.
	Headers Headers `json:"headers,omitzero"`

	// UpstreamHost is the Host that is forwarded. Empty means the client's.
	UpstreamHost string `json:"upstreamHost,omitempty"`

	// TLSProfile names one of Proxy.TLSProfiles, for https upstreams. Empty means
	// the profile named "" or, without one, the system's certificate authorities
	// and no client certificate.
	TLSProfile string `json:"tlsProfile,omitempty"`

	// Protocols are the upgrade protocols that may pass besides "websocket", in
	// lower case. Their tunnels are opaque: their bytes are not parsed.
	Protocols []string `json:"protocols,omitempty"`

	// OpaqueQuery is a query parameter, such as "skipWebSocketFrames=true". It makes
	// the tunnels of WebSocket upgrades that have it opaque: they send no frames.
	OpaqueQuery string `json:"opaqueQuery,omitempty"`

	// MaxBody is the greatest length of a request's body, in bytes. A longer one is
	// answered with 413. Zero means no limit.
	MaxBody int64 `json:"maxBody,omitempty"`

	// BodyTimeout bounds the wait between two reads of a request's body, until the
	// response begins. A late body is answered with 408. Zero means 60 s, and no
	// limit for gRPC, whose clients may be silent as long as they like.
	BodyTimeout time.Duration `json:"-"`

	// DialTimeout bounds connecting to one upstream. Zero means 10 s.
	DialTimeout time.Duration `json:"-"`

	// HandshakeTimeout bounds an upgrade, from the dial to the upstream's answer.
	// Zero means 30 s, or DialTimeout if that is longer.
	HandshakeTimeout time.Duration `json:"-"`

	// HeaderTimeout bounds the wait for a response's header after the request has
	// been written. Zero means no limit, as long polling needs.
	HeaderTimeout time.Duration `json:"-"`

	// StreamTimeout bounds the wait between two reads of a response's body. Zero
	// means no limit.
	StreamTimeout time.Duration `json:"-"`

	// StallTimeout bounds the time for which a client or an upstream reads nothing
	// of what waits to be written to it. Zero means 5 min.
	StallTimeout time.Duration `json:"-"`

	// IdleTimeout bounds the time for which a tunnel carries no byte, either way. A
	// ping of PingEvery does not count, any other ping does. A change applies to
	// open tunnels. Zero means no limit.
	IdleTimeout time.Duration `json:"-"`

	// PingEvery is the time without a byte from a WebSocket client after which the
	// gateway sends it a ping: at least 1 s. If nothing comes for as long again, the
	// tunnel ends ([WhyPing]); whatever comes counts as an answer. The pings and
	// their answers are not forwarded, not counted in [Traffic], no activity, and do
	// not re-arm IdleTimeout. A change applies to open tunnels. Zero means no pings.
	PingEvery time.Duration `json:"-"`

	// AckTimeout ends a tunnel if the machine at one side acknowledges nothing of
	// what was sent to it for this long: at least 4 s, on Linux. A machine that has
	// vanished is found so; one that sleeps for as long, such as a closed laptop, is
	// taken for it. A peer that only does not read is not ended by it: StallTimeout
	// bounds that. A change applies to tunnels opened later. Zero means none: the
	// kernel gives up after a quarter of an hour or so.
	AckTimeout time.Duration `json:"-"`

	// LifeTimeout bounds the time for which a tunnel is open. Zero means no limit.
	LifeTimeout time.Duration `json:"-"`

	// ActivitySize is the least length of a WebSocket message's payload, in bytes,
	// that counts as activity: editors send short messages while nobody types. A
	// change applies to tunnels opened later. Zero means that every message counts.
	ActivitySize int `json:"activitySize,omitempty"`

	// OnDelete is applied to the route's tunnels when the route is deleted, unless
	// the same batch, or a later one before OnDelete.After has passed, puts it back.
	OnDelete ClosePolicy `json:"onDelete,omitzero"`

	// OnUpstreamRemoved is applied to open tunnels whose upstream this route does
	// not list, when it replaces a route that listed it. No other change to a route
	// closes tunnels.
	OnUpstreamRemoved ClosePolicy `json:"onUpstreamRemoved,omitzero"`

	// Labels are for selecting routes. The Proxy does not read them.
	Labels map[string]string `json:"labels,omitempty"`

	// Meta is any JSON value of the caller's. It is kept without insignificant
	// space, and with <, > and & escaped as encoding/json does it. The Proxy does not
	// read it.
	Meta json.RawMessage `json:"meta,omitempty"`
}

// Key returns the route's identity.
func (r *Route) Key() Key { return Key{r.Host, r.Path, r.Exact} }

// upstreamHost returns the Host that is forwarded for the client's.
func (r *Route) upstreamHost(client string) string { return cmp.Or(r.UpstreamHost, client) }

// Equal reports whether r and other are the same in every field.
func (r *Route) Equal(other *Route) bool {
	return r.Key() == other.Key() &&
		slices.Equal(r.Upstreams, other.Upstreams) &&
		r.StripPath == other.StripPath &&
		r.RestorePath == other.RestorePath &&
		r.Tenant == other.Tenant &&
		r.SameOrigin == other.SameOrigin &&
		r.Resolve == other.Resolve &&
		r.Sticky == other.Sticky &&
		r.Check == other.Check &&
		r.Headers.equal(&other.Headers) &&
		r.UpstreamHost == other.UpstreamHost &&
		r.TLSProfile == other.TLSProfile &&
		slices.Equal(r.Protocols, other.Protocols) &&
		r.OpaqueQuery == other.OpaqueQuery &&
		r.MaxBody == other.MaxBody &&
		r.BodyTimeout == other.BodyTimeout &&
		r.DialTimeout == other.DialTimeout &&
		r.HandshakeTimeout == other.HandshakeTimeout &&
		r.HeaderTimeout == other.HeaderTimeout &&
		r.StreamTimeout == other.StreamTimeout &&
		r.StallTimeout == other.StallTimeout &&
		r.IdleTimeout == other.IdleTimeout &&
		r.PingEvery == other.PingEvery &&
		r.AckTimeout == other.AckTimeout &&
		r.LifeTimeout == other.LifeTimeout &&
		r.ActivitySize == other.ActivitySize &&
		r.OnDelete == other.OnDelete &&
		r.OnUpstreamRemoved == other.OnUpstreamRemoved &&
		maps.Equal(r.Labels, other.Labels) &&
		bytes.Equal(r.Meta, other.Meta)
}

// cloneOptions returns a copy whose options share no memory that the caller
// could modify.
func (r *Route) cloneOptions() Route {
	c := *r
	c.Headers = r.Headers.clone()
	c.Protocols = slices.Clone(r.Protocols)
	return c
}

// compact returns a JSON value without insignificant space and with the escapes of
// encoding/json, as it comes back from there: a difference in these is no change.
func compact(value json.RawMessage) json.RawMessage {
	if value == nil {
		return nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, value); err != nil {
		return bytes.Clone(value)
	}
	var escaped bytes.Buffer
	json.HTMLEscape(&escaped, b.Bytes())
	return escaped.Bytes()
}

// validate checks all fields but those of the key and of the upstreams, and calls
// wrong for each that is invalid.
func (r *Route) validate(wrong func(field, value, want string)) {
	if len(r.Upstreams) == 0 && !r.Resolve {
		wrong("upstreams", "", "must name at least one, such as http://10.0.0.7:8080")
	}
	if r.UpstreamHost != "" {
		if _, _, err := canon.ScanHost(r.UpstreamHost); err != nil {
			wrong("upstreamHost", r.UpstreamHost, err.Error())
		}
	}
	for i, protocol := range r.Protocols {
		field := fmt.Sprintf("protocols[%d]", i)
		switch {
		case !headers.IsToken(strings.Replace(protocol, "/", "", 1)) || strings.ToLower(protocol) != protocol:
			wrong(field, protocol, "must be a protocol name in lower case (RFC 9110 §7.8)")
		case protocol == "websocket" || protocol == "h2c":
			wrong(field, protocol, "must not be listed: websocket always passes, h2c never")
		}
	}
	r.Sticky.validate(wrong)
	r.Check.validate(r, wrong)
	r.Headers.validate(wrong)
	if r.MaxBody < 0 {
		wrong("maxBody", fmt.Sprint(r.MaxBody), "must be a number of bytes, or 0 for no limit")
	}
	for _, t := range []struct {
		field string
		value time.Duration
	}{
		{"bodyTimeout", r.BodyTimeout},
		{"dialTimeout", r.DialTimeout},
		{"handshakeTimeout", r.HandshakeTimeout},
		{"headerTimeout", r.HeaderTimeout},
		{"streamTimeout", r.StreamTimeout},
		{"stallTimeout", r.StallTimeout},
		{"idleTimeout", r.IdleTimeout},
		{"lifeTimeout", r.LifeTimeout},
	} {
		if t.value < 0 {
			wrong(t.field, t.value.String(), "must not be negative")
		}
	}
	if r.PingEvery != 0 && r.PingEvery < time.Second {
		wrong("pingEvery", r.PingEvery.String(), "must be 0 for no pings, or at least 1s: an answer takes its time")
	}
	if r.AckTimeout != 0 && r.AckTimeout < 4*time.Second {
		wrong("ackTimeout", r.AckTimeout.String(), "must be 0 for none, or at least 4s: what is lost is sent again first")
	}
	if r.ActivitySize < 0 {
		wrong("activitySize", fmt.Sprint(r.ActivitySize), "must be a number of bytes, or 0 for every message")
	}
	r.OnDelete.validate("onDelete", wrong)
	r.OnUpstreamRemoved.validate("onUpstreamRemoved", wrong)
	if r.Meta != nil && !json.Valid(r.Meta) {
		wrong("meta", string(r.Meta[:min(len(r.Meta), 32)]), "must be a JSON value")
	}
	if n := r.jsonSize(); n > MaxRoute {
		wrong("route", fmt.Sprintf("%d bytes", n), fmt.Sprintf("must be at most %d bytes long as JSON", MaxRoute))
	}
}

// jsonSize returns the length of the route as JSON, or less than the limit if
// it cannot be near it.
func (r *Route) jsonSize() int {
	n := len(r.Host) + len(r.Path) + len(r.UpstreamHost) + len(r.TLSProfile) + len(r.OpaqueQuery) + len(r.Meta) +
		len(r.OnDelete.Reason) + len(r.OnUpstreamRemoved.Reason) + len(r.Check.Path) + len(r.Sticky.Cookie) + len(r.Sticky.Path) + r.Headers.size()
	for _, u := range r.Upstreams {
		n += len(u.URL) + 32
	}
	for _, p := range r.Protocols {
		n += len(p) + 4
	}
	for k, v := range r.Labels {
		n += len(k) + len(v) + 8
	}
	if n < (MaxRoute-1024)/6 { // \u00XX, the longest that JSON makes of a byte
		return n
	}
	b, err := json.Marshal(*r) // not r, or every route would be on the heap
	if err != nil {
		return n
	}
	return len(b)
}

// routeJSON is a view of a route as JSON: the same fields, durations as texts.
type routeJSON struct {
	*plainRoute
	BodyTimeout      *durationText `json:"bodyTimeout,omitzero"`
	DialTimeout      *durationText `json:"dialTimeout,omitzero"`
	HandshakeTimeout *durationText `json:"handshakeTimeout,omitzero"`
	HeaderTimeout    *durationText `json:"headerTimeout,omitzero"`
	StreamTimeout    *durationText `json:"streamTimeout,omitzero"`
	StallTimeout     *durationText `json:"stallTimeout,omitzero"`
	IdleTimeout      *durationText `json:"idleTimeout,omitzero"`
	PingEvery        *durationText `json:"pingEvery,omitzero"`
	AckTimeout       *durationText `json:"ackTimeout,omitzero"`
	LifeTimeout      *durationText `json:"lifeTimeout,omitzero"`
}

type plainRoute Route // Route without its methods

func (r *Route) json() *routeJSON {
	return &routeJSON{
		plainRoute:       (*plainRoute)(r),
		BodyTimeout:      (*durationText)(&r.BodyTimeout),
		DialTimeout:      (*durationText)(&r.DialTimeout),
		HandshakeTimeout: (*durationText)(&r.HandshakeTimeout),
		HeaderTimeout:    (*durationText)(&r.HeaderTimeout),
		StreamTimeout:    (*durationText)(&r.StreamTimeout),
		StallTimeout:     (*durationText)(&r.StallTimeout),
		IdleTimeout:      (*durationText)(&r.IdleTimeout),
		PingEvery:        (*durationText)(&r.PingEvery),
		AckTimeout:       (*durationText)(&r.AckTimeout),
		LifeTimeout:      (*durationText)(&r.LifeTimeout),
	}
}

// MarshalJSON leaves out what is zero.
func (r Route) MarshalJSON() ([]byte, error) { return json.Marshal(r.json()) }

// UnmarshalJSON is strict: an unknown field is an error. Its errors are
// [FieldErrors].
func (r *Route) UnmarshalJSON(data []byte) error {
	read, err := readRoute(data)
	if err == nil {
		*r = *read
	}
	return err
}

// readRoute is what UnmarshalJSON does, with one copy less.
func readRoute(data []byte) (*Route, error) {
	read := new(Route)
	if err := unmarshalStrict(data, read.json(), "route"); err != nil {
		return nil, err
	}
	return read, nil
}

// DecodeRoute reads a route as a store keeps it, which a later version of this
// package may have written. It returns fields that it does not know, and leaves
// out those in upstreams, checks and close policies. Otherwise it is
// UnmarshalJSON.
func DecodeRoute(data []byte) (_ Route, unknown map[string]json.RawMessage, err error) {
	if read, err := readRoute(data); err == nil { // json.Unmarshal would read it twice more
		return *read, nil, nil
	}
	var route Route
	strict := json.Unmarshal(data, &route)
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || fields == nil {
		return Route{}, nil, strict
	}
	unknown = leaveOut(fields, routeFields)
	for name, value := range fields {
		switch strings.ToLower(name) {
		case "upstreams":
			fields[name] = plainUpstreams(value)
		case "ondelete", "onupstreamremoved":
			fields[name] = plainObject(value, closePolicyFields)
		case "check":
			fields[name] = plainObject(value, checkFields)
		}
	}
	known, err := json.Marshal(fields)
	if err != nil {
		return Route{}, nil, strict
	}
	if err := json.Unmarshal(known, &route); err != nil {
		return Route{}, nil, err
	}
	return route, unknown, nil
}

// plainUpstreams returns an array of upstreams without unknown fields, and
// anything else as it came.
func plainUpstreams(data json.RawMessage) json.RawMessage {
	var upstreams []json.RawMessage
	if json.Unmarshal(data, &upstreams) != nil {
		return data
	}
	for i, upstream := range upstreams {
		upstreams[i] = plainObject(upstream, upstreamFields)
	}
	plain, _ := json.Marshal(upstreams)
	return plain
}

// plainObject returns an object with nothing but its known fields, and anything
// else as it came.
func plainObject(data json.RawMessage, known []string) json.RawMessage {
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil || fields == nil {
		return data
	}
	leaveOut(fields, known)
	plain, _ := json.Marshal(fields)
	return plain
}

// leaveOut takes all fields but the known ones out, and returns those.
func leaveOut(fields map[string]json.RawMessage, known []string) map[string]json.RawMessage {
	unknown := make(map[string]json.RawMessage)
	for name, value := range fields {
		if !slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) {
			unknown[name] = value
			delete(fields, name)
		}
	}
	return unknown
}

var (
	routeFields       = namesOf(jsonFields(reflect.TypeFor[routeJSON]()))
	upstreamFields    = namesOf(jsonFields(reflect.TypeFor[Upstream]()))
	closePolicyFields = namesOf(jsonFields(reflect.TypeFor[closePolicyJSON]()))
	checkFields       = namesOf(jsonFields(reflect.TypeFor[checkJSON]()))
)
